"""Which experiments a matrix makes, and the table of them."""

import pytest

from diffground.errors import UserError

pytest.importorskip("prefect")

from flows.ablate import _differing, plan_variants
from flows.artifacts import metrics_table


def test_every_experiment_meets_every_combination():
    matrix = {"grounding.iterations": [20, 40], "grounding.text_drop": [0, 0.5]}
    variants = plan_variants("smoke", ["seen_05", "seen_10"], matrix, target="evaluate_zs3")
    assert len({variant.experiment.name for variant in variants}) == len(variants) == 8
    assert variants[1].experiment.overrides == (
        "experiment=seen_05",
        "grounding.iterations=20",
        "grounding.text_drop=0.5",
    )


def test_without_experiments_the_default_run_varies_up_to_the_target():
    [low, high] = plan_variants("smoke", [], {"detector.score_threshold": [0.3, 0.6]}, target="detect")
    assert low.experiment.target == high.experiment.target == "detect"
    assert low.experiment.overrides == ("detector.score_threshold=0.3",)


def test_an_override_that_fits_nothing_is_told_before_anything_runs():
    with pytest.raises(UserError, match="iterrations"):
        plan_variants("smoke", [], {"grounding.iterrations": [1]}, target="detect")


def test_the_table_shows_what_differs():
    columns = {"a": {"same": 1.0, "other": 2.0}, "b": {"same": 1.0, "other": 0.25, "new": None}}
    assert metrics_table(_differing(columns)) == "| | a | b |\n| --- | ---: | ---: |\n| other | 2 | 0.25 |"
    assert metrics_table(_differing({"a": {"same": 1.0}})) == "| | a |\n| --- | ---: |\n| same | 1 |"
    assert metrics_table({}) == ""
