"""prepare writes a; train reads a and code.py, writes m; score reads m and code.py. Letters stand for hashes."""

import yaml

from diffground.report.experiments import default_inputs, input_digests


def stage(outs, **deps):
    return {
        "cmd": "true",
        "deps": [{"path": path.replace("_", "."), "hash": "md5", "md5": md5} for path, md5 in deps.items()],
        "outs": [{"path": path, "md5": md5} for path, md5 in outs.items()],
    }


def stages(*, code="C1", a="A1"):
    return {
        "prepare": stage({"a": a}, data_py="D1"),
        "train": stage({"m": "M1"}, a=a, code_py=code),
        "score": stage({"s": "S1"}, m="M1", code_py="C1"),
        "other": stage({}, code_py="C1"),
    }


def test_code_counts_where_it_is_read_and_what_stages_made_does_not():
    before = input_digests(stages())
    assert set(before) == {"prepare", "train", "score", "other"}
    assert input_digests(stages(a="A2")) == before
    after = input_digests(stages(code="C2"))
    assert {name for name in before if after[name] != before[name]} == {"train"}


def test_a_target_leaves_out_what_it_does_not_need():
    assert set(input_digests(stages(), target="train")) == {"prepare", "train"}
    assert input_digests(stages(), target="score").items() <= input_digests(stages()).items()


def test_reads_a_lock_file_and_knows_nothing_without_one(tmp_path):
    path = tmp_path / "dvc.lock"
    assert default_inputs(path) == {}
    path.write_text(yaml.safe_dump({"schema": "2.0", "stages": stages()}))
    assert default_inputs(path) == input_digests(stages())
