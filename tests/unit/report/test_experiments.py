import json
from dataclasses import replace

import pytest

from diffground.errors import UserError
from diffground.report.experiments import (
    ExperimentRecord,
    Setup,
    comparable,
    differing,
    effective_params,
    read_records,
    write_record,
)

MINI = Setup(profile="mini", checkpoint="models/mini/diffusion", sha256="0123456789abcdef")
DEFAULT = {"profile": "mini", "generator.num_steps": 12, "vocabulary.unseen": ["dog"], "grounding.seed": 0}
RECORD = ExperimentRecord(
    experiment="seen_05",
    setup=MINI,
    commit="0123456789abcdef",
    inputs={"generate": "g1", "evaluate_grounding": "e1"},
    changed={"vocabulary.unseen": ["dog", "cat"]},
    params={**DEFAULT, "vocabulary.unseen": ["dog", "cat"]},
    metrics={"evaluate_grounding": {"grounding": {"one_seen": 80.0}}},
)


def test_what_is_written_is_read(tmp_path):
    other = replace(RECORD, experiment="seen_10", metrics={})
    write_record(tmp_path / "seen_10.json", other)
    write_record(tmp_path / "seen_05.json", RECORD)
    (tmp_path / "README.md").write_text("not a record")
    assert read_records(tmp_path) == [RECORD, other]
    assert {path.name for path in tmp_path.iterdir()} == {"seen_05.json", "seen_10.json", "README.md"}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", json.dumps({"experiment": "x"}), json.dumps({"setup": {"profile": "mini"}})],
)
def test_another_file_is_one_line(tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(UserError, match=r"bad\.json: no record of an experiment") as caught:
        read_records(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_field_of_the_wrong_type_is_one_line(tmp_path):
    write_record(tmp_path / "bad.json", replace(RECORD, metrics=[1]))
    with pytest.raises(UserError, match=r"bad\.json: .*\(metrics: Input should be an object"):
        read_records(tmp_path)


def test_only_runs_of_the_same_profile_and_checkpoint_are_next_to_the_default_run():
    records = [
        RECORD,
        replace(RECORD, experiment="smoke", setup=replace(MINI, profile="smoke")),
        replace(RECORD, experiment="retrained", setup=replace(MINI, sha256="fedcba9876543210")),
        replace(RECORD, experiment="longer", params={**RECORD.params, "generator.num_steps": 24}),
    ]
    experiments = comparable(records, MINI, DEFAULT)
    assert experiments.metrics == {"seen_05": RECORD.metrics}
    assert list(experiments.left_out) == [
        "smoke: profile smoke, generator models/mini/diffusion (0123456789ab)",
        "retrained: profile mini, generator models/mini/diffusion (fedcba987654)",
        "longer: generator.num_steps = 24",
    ]


def test_a_run_without_what_its_experiment_is_about_is_left_out():
    # `dvc exp run -n seen_05` without -S experiment=seen_05, or a file of conf/experiment that changed since
    experiments = comparable([replace(RECORD, params=DEFAULT)], MINI, DEFAULT)
    assert experiments.metrics == {}
    assert list(experiments.left_out) == ["seen_05: vocabulary.unseen = ['dog']"]


def test_a_record_of_other_code_or_models_stays_and_is_named():
    later = replace(RECORD, experiment="seen_10", commit="fedcba9876543210")
    default = {"generate": "g2", "evaluate_grounding": "e1", "report": "r1"}
    experiments = comparable(
        [replace(RECORD, inputs={**RECORD.inputs, "generate": "g2"}), later], MINI, DEFAULT, inputs=default
    )
    assert set(experiments.metrics) == {"seen_05", "seen_10"}
    assert experiments.note(["seen_*"]) == (
        "Run with other code, models or files than the default run: seen_10 (commit fedcba98: generate)."
    )
    assert experiments.note(["table1_*"]) == ""


def test_another_commit_with_the_same_inputs_needs_no_word():
    later = replace(RECORD, experiment="seen_10", commit="fedcba9876543210")
    assert comparable([RECORD, later], MINI, DEFAULT, inputs=dict(RECORD.inputs)).note(["*"]) == ""
    assert comparable([RECORD], MINI, DEFAULT).note(["*"]) == "", "no dvc.lock to compare with"


def test_a_parameter_that_came_later_is_no_difference():
    assert comparable([RECORD], MINI, {**DEFAULT, "prompts.contexts": ""}).left_out == []


def test_a_default_run_of_its_own_is_seen():
    experiments = comparable([RECORD], MINI, {**DEFAULT, "grounding.seed": 1})
    assert list(experiments.left_out) == ["seen_05: grounding.seed = 0"]


def test_scores_of_what_was_not_run_are_none():
    experiments = comparable([RECORD], MINI, DEFAULT)
    assert experiments.scores("seen_05", "evaluate_grounding") == {"grounding": {"one_seen": 80.0}}
    assert experiments.scores("seen_05", "evaluate_zs3") is None
    assert experiments.scores("seen_10", "evaluate_grounding") is None


def test_a_hub_id_is_named_once():
    assert Setup("paper_voc", "org/model", "org/model").describe() == "profile paper_voc, generator org/model"


def test_effective_parameters_leave_out_where_and_how_fast_it_runs():
    sections = {
        "profile": "mini",
        "generator": {"batch_size": 8},
        "grounding": {"batch_size": 16},
        "a": {"x": (1, 2), "y": 3},
        "runtime": {"device": "cpu"},
        "tracking": {"uri": "z"},
    }
    assert effective_params(sections) == {"profile": "mini", "grounding.batch_size": 16, "a.x": [1, 2], "a.y": 3}


def test_differing_names_other_and_new_values():
    assert differing({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 0, "d": 4}) == {"b": 2, "c": 3}


def test_a_field_that_records_do_not_have_is_one_line(tmp_path):
    write_record(tmp_path / "bad.json", RECORD)
    text = (tmp_path / "bad.json").read_text()
    (tmp_path / "bad.json").write_text(text.replace('"commit"', '"other": 1, "commit"'))
    with pytest.raises(UserError, match=r"bad\.json: no record of an experiment \(other: Unexpected"):
        read_records(tmp_path)
