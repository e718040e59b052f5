"""prepare writes a; train reads a, writes m; score reads m, writes a metric. Letters stand for hashes."""

from pathlib import Path

from diffground.reproduction.lock_file import combine, metrics_files, read_stages, read_yaml, write_stages


def stage(deps=(), outs=(), **params):
    return {
        "cmd": "true",
        "deps": [{"path": path, "md5": md5} for path, md5 in deps],
        "params": {"params.yaml": params},
        "outs": [{"path": path, "md5": md5} for path, md5 in outs],
    }


def stages(*, step, a, rate, m, score):
    return {
        "score": stage([("m", m)], [("reports/metrics/score.json", score)]),
        "prepare": stage([("code.py", "c")], [("a", a)], **{"generator.step": step}),
        "train": stage([("a", a)], [("m", m)], train={"rate": rate, "sets": ["x"]}),
    }


def params(*, step, rate):
    return {"generator": {"step": step, "size": 64}, "train": {"rate": rate, "sets": ["x"]}}


DEFAULT = stages(step=1, a="A1", rate=0.1, m="M1", score="S1")
OTHER = stages(step=2, a="A2", rate=0.1, m="M2", score="S2")


def test_every_stage_of_its_own_parameters_holds():
    assert combine([DEFAULT], params(step=1, rate=0.1)) == (DEFAULT, {"prepare", "train", "score"})


def test_what_follows_from_another_parameter_does_not_hold():
    assert combine([DEFAULT], params(step=1, rate=0.2))[1] == {"prepare"}
    assert combine([DEFAULT], params(step=3, rate=0.1))[1] == set()


def test_a_section_is_compared_whole():
    changed = params(step=1, rate=0.1)
    changed["train"]["sets"] = ["x", "y"]
    assert combine([DEFAULT], changed)[1] == {"prepare"}


def test_a_stage_that_read_something_else_does_not_hold():
    stale = {**OTHER, "score": DEFAULT["score"]}
    assert combine([stale], params(step=2, rate=0.1))[1] == {"prepare", "train"}


def test_the_first_that_holds_is_taken_stage_by_stage():
    slow = stages(step=1, a="A1", rate=0.2, m="M3", score="S3")
    chosen, holding = combine([DEFAULT, slow], params(step=1, rate=0.2))
    assert holding == {"prepare", "train", "score"}
    assert chosen["prepare"] is DEFAULT["prepare"]
    assert chosen["train"] is slow["train"] and chosen["score"] is slow["score"]


def test_without_any_that_holds_the_first_is_kept():
    chosen, holding = combine([DEFAULT, OTHER], params(step=3, rate=0.1))
    assert (chosen, holding) == (DEFAULT, set())


def test_only_metrics_of_the_named_stages_count():
    assert metrics_files(DEFAULT, ["train", "score"], folder="reports/metrics") == {
        "score": "reports/metrics/score.json"
    }
    assert metrics_files(DEFAULT, ["train"], folder="reports/metrics") == {}


def test_what_is_written_is_read_and_small_numbers_stay_numbers(tmp_path):
    path: Path = tmp_path / "dvc.lock"
    small = {"train": stage(**{"train.rate": 1e-05})}
    write_stages(path, small)
    assert read_stages(path.read_text()) == small
    assert read_stages("") == {}
    assert read_yaml("rate: 1e-05") == {"rate": 1e-05}
