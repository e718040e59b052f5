"""Mean and standard deviation over seeds, worked by hand."""

from __future__ import annotations

import pytest

from diffground.errors import UserError
from diffground.report.experiments import Experiments, Setup
from diffground.report.spread import mean_and_spread, spread_tables
from diffground.reproduction.catalogue import read_catalogue, repeat, select


def run(one_seen: float, harmonic: float) -> dict:
    return {
        "evaluate_grounding": {"grounding": {"one_seen": one_seen}, "daam": {"one_seen": 1.0}},
        "evaluate_zs3": {"synthetic": {"seen": 1.0, "unseen": None, "harmonic": harmonic}},
    }


def experiments(**metrics: dict) -> Experiments:
    return Experiments(setup=Setup("mini", "g", "h"), metrics=metrics, left_out=())


def test_mean_and_standard_deviation_of_a_sample() -> None:
    assert mean_and_spread([80.0, 82.0, 84.0]) == "82.0 ± 2.0"
    assert mean_and_spread([80.0]) == "80.0"


def test_rows_are_those_that_depend_on_a_training() -> None:
    others = experiments(
        table2_model_c=run(0, 0),  # the default run again
        table2_model_c_seed1=run(82, 41),
        table2_model_c_seed2=run(84, 43),
        table2_model_a_seed1=run(0, 0),
        module_paper=run(50, 0),
        module_paper_seed1=run(52, 0),
        module_attention=run(60, 0),
        module_both=run(0, 0),  # the default run again
        module_both_seed1=run(82, 0),
        module_both_seed2=run(84, 0),
    )
    tables = spread_tables(run(80, 42), others)
    assert [(row[0], row[1], row[-1]) for row in tables["spread_protocol1"].rows] == [
        ("grounding module of the paper", "51.0 ± 1.4", 2),
        ("the same, and the words' cross-attention", "60.0", 1),
        ("grounding module of the default run", "82.0 ± 2.0", 3),
    ]
    assert tables["spread_zs3"].rows == (("synthetic images, all categories", "1.0 ± 0.0", None, "42.0 ± 1.0", 3),)


def test_without_repetitions_there_is_no_table() -> None:
    assert spread_tables(run(80, 42), experiments(table2_model_c=run(0, 0))) == {}


def test_repetitions_have_seeds_and_names_of_their_own() -> None:
    chosen = select(read_catalogue(), ["table2_model_c"])
    names = [experiment.name for experiment in repeat(chosen, 3)]
    assert names == ["table2_model_c", "table2_model_c_seed1", "table2_model_c_seed2"]
    assert repeat(chosen, 3)[2].overrides[-2:] == ("grounding.seed=2", "segmenter.seed=2")
    with pytest.raises(UserError, match="--seeds must be at least 1, got 0"):
        repeat(chosen, 0)
