import pytest

from diffground.report.experiments import Experiments, Setup
from diffground.report.trends import Trend, find_trends, trend_table

GROUPS = ("one_seen", "one_unseen", "two_seen", "two_seen_unseen", "two_unseen")
HIGH, LOW = dict.fromkeys(GROUPS, 80.0), dict.fromkeys(GROUPS, 40.0)
# statement's first words -> the experiment, stage, method that the default run is compared with
DAAM, NORMAL, OBJECTS, REAL, MODEL_D, MODEL_B, MODEL_C = (
    "Grounding is above DAAM", "Training that ignores", "Training on one and two", "Grounding learns no less",
    "Real images of seen", "Two objects an image", "A mixture",
)  # fmt: skip


def trends(default, splits=None, **experiments):
    runs = Experiments(setup=Setup("mini", "m", "s"), metrics=experiments, left_out=())
    return find_trends(default, runs, splits or {})


def find(found, start):
    (trend,) = [trend for trend in found if trend.statement.startswith(start)]
    return trend


def grounded(scores):
    return {"evaluate_grounding": {"grounding": scores}}


def scored(name, **scores):
    return {"evaluate_zs3": {name: scores}}


def test_equal_scores_are_no_worse_but_not_above():
    assert Trend("a", [("x", 1.0, 1.0)], []).holds([("x", 1.0, 1.0)]) is False
    assert Trend("a", [], [], strict=False).holds([("x", 1.0, 1.0)]) is True


def test_one_pair_that_speaks_against_it_is_enough():
    trend = Trend("A is above B", [("x", 2.0, 1.0), ("y", 1.0, 2.0)], [("x", 9.0, 1.0)])
    assert trend.sentence() == (
        "A is above B: does not hold here (x 2.0 against 1.0; y 1.0 against 2.0); "
        "holds in the paper (x 9.0 against 1.0)."
    )


def test_what_was_not_run_says_so():
    assert Trend("A", [("x", 2.0, None)], []).sentence() == (
        "A: not run here (no numbers); not run in the paper (no numbers)."
    )


def test_grounding_against_daam_by_split():
    splits = {"1": {"grounding": HIGH, "daam": LOW}, "3": {"grounding": LOW, "daam": {**LOW, "one_seen": 41.0}}}
    found = trends({}, splits)
    first, second, third = (find(found, f"{DAAM} in all five groups of split {n}") for n in (1, 2, 3))
    assert (first.holds(first.here), second.holds(second.here), third.holds(third.here)) == (True, None, False)
    # table 1 of the paper: on split 1 DAAM has 69.94 where grounding has 57.93
    assert first.holds(first.paper) is False
    assert "two unseen 57.9 against 69.9" in first.sentence()
    assert second.holds(second.paper) is True and third.holds(third.paper) is True


@pytest.mark.parametrize(
    ("start", "experiment"), [(NORMAL, "training_normal"), (OBJECTS, "objects_one"), (REAL, "data_real")]
)
def test_ablations_both_ways(start, experiment):
    better = find(trends(grounded(HIGH), **{experiment: grounded(LOW)}), start)
    worse = find(trends(grounded(LOW), **{experiment: grounded(HIGH)}), start)
    equal = find(trends(grounded(LOW), **{experiment: grounded(LOW)}), start)
    missing = find(trends(grounded(LOW)), start)
    assert [t.holds(t.here) for t in (better, worse, equal, missing)] == [True, False, True, None]
    assert better.holds(better.paper) is True


def test_training_types_are_compared_on_unseen_categories_alone():
    default = grounded({**HIGH, "one_seen": 0.0, "two_seen": 0.0})
    trend = find(trends(default, training_normal=grounded(LOW)), NORMAL)
    assert trend.holds(trend.here) is True
    assert [what for what, _, _ in trend.here] == ["one unseen", "seen + unseen", "two unseen"]


@pytest.mark.parametrize(
    ("start", "default", "experiment", "key"),
    [
        (MODEL_D, "synthetic", ("table2_model_d", "synthetic_and_real_seen"), "seen"),
        (MODEL_C, "synthetic", ("table2_model_b", "synthetic"), "harmonic"),
    ],
)
def test_models_both_ways(start, default, experiment, key):
    name, training_set = experiment
    outcomes = []
    for here, there in ((50.0, 60.0), (60.0, 50.0)):
        trend = find(trends(scored(default, **{key: here}), **{name: scored(training_set, **{key: there})}), start)
        outcomes.append(trend.holds(trend.here))
        assert trend.holds(trend.paper) is True
    assert outcomes == ([True, False] if start == MODEL_D else [False, True])
    trend = find(trends(scored(default, **{key: 1.0})), start)
    assert trend.holds(trend.here) is None


def test_model_b_is_compared_with_a():
    a, b = scored("synthetic", harmonic=50.0), scored("synthetic", harmonic=51.0)
    trend = find(trends({}, table2_model_a=a, table2_model_b=b), MODEL_B)
    assert trend.here == [("harmonic mean", 51.0, 50.0)] and trend.holds(trend.here) is True


def test_the_table_has_a_row_a_trend():
    found = trends(grounded(HIGH), training_normal=grounded(LOW))
    table = trend_table(found)
    assert len(table.rows) == len(found) == 9
    assert {row[1] for row in table.rows} == {"holds", "not run"}
    assert {row[3] for row in table.rows} == {"holds", "does not hold"}
