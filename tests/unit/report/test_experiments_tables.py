"""Tables 1 and 2 and the ablations of hand-made scores; the paper's rows as printed there."""

import pytest

from diffground.report.experiments import Experiments, Setup
from diffground.report.experiments_tables import ablation_table, splits_of, table1, table2

GROUPS = ("one_seen", "one_unseen", "two_seen", "two_seen_unseen", "two_unseen")
SETUP = Setup("mini", "m", "s")


def groups(*scores):
    return dict(zip(GROUPS, scores, strict=True))


def grounding(scores, daam=None):
    metrics = {"grounding": groups(*scores)}
    return {"evaluate_grounding": {**metrics, **({"daam": groups(*daam)} if daam else {})}}


def zs3(**sets):
    scores = {name: dict(zip(("seen", "unseen", "harmonic"), values, strict=True)) for name, values in sets.items()}
    background = {name: {key: value - 10 for key, value in part.items()} for name, part in scores.items()}
    return {"evaluate_zs3": {**scores, "with_background": background}}


def experiments(**metrics):
    return Experiments(setup=SETUP, metrics=metrics, left_out=())


def rows_of(table, *start):
    return [row for row in table.rows if row[: len(start)] == start]


DEFAULT = {
    **grounding([90, 80, 70, 60, 50], daam=[30, 30, 20, 20, 10]),
    **zs3(synthetic=(50, 40, 44), real_all=(60, 61, 60.5)),
}
NONE = experiments()


def test_table1_has_the_splits_that_were_run_and_all_of_the_papers():
    table = table1(splits_of(DEFAULT, NONE, split="1"))
    assert rows_of(table, "grounding module, split 1") == [
        ("grounding module, split 1", "here", 90.0, 80.0, 70.0, 60.0, 50.0),
        ("grounding module, split 1", "paper", 90.16, 83.19, 78.93, 66.07, 57.93),
    ]
    assert [row[1] for row in rows_of(table, "grounding module, split 2")] == ["paper"]
    assert [row[1] for row in rows_of(table, "grounding module, mean")] == ["paper"]
    assert rows_of(table, "DAAM, mean") == [("DAAM, mean", "paper", 64.84, 62.90, 48.21, 49.19, 50.95)]


def test_table1_has_the_mean_of_three_splits_and_none_where_a_score_is_missing():
    runs = experiments(
        table1_split2=grounding([60, 50, 40, 30, None], daam=[0, 0, 0, 0, 0]),
        table1_split3=grounding([30, 20, 10, 0, 2]),
    )
    table = table1(splits_of(DEFAULT, runs, split="1"))
    assert rows_of(table, "grounding module, mean", "here") == [
        ("grounding module, mean", "here", 60.0, 50.0, 40.0, 30.0, None)
    ]
    assert rows_of(table, "DAAM, mean", "here") == [], "DAAM has two splits of three"


def test_the_default_run_takes_the_place_of_its_own_split():
    runs = experiments(table1_split2=grounding([1, 1, 1, 1, 1]))
    splits = splits_of(DEFAULT, runs, split="2")
    assert list(splits) == ["2"] and splits["2"]["grounding"]["one_seen"] == 90
    assert splits_of(DEFAULT, NONE, split="average") == {}


def test_table2_says_what_each_model_learnt_from():
    runs = experiments(
        table2_model_a=zs3(synthetic=(40, 30, 34)), table2_model_d=zs3(synthetic_and_real_seen=(70, 45, 55))
    )
    table = table2(DEFAULT, runs)
    synthetic, real = "synthetic images, grounded masks", "real images, annotated masks"
    assert rows_of(table, "Model A, one object") == [
        ("Model A, one object", "here", synthetic, synthetic, 40.0, 30.0, 34.0, 30.0, 20.0, 24.0),
        ("Model A, one object", "paper", synthetic, synthetic, 62.8, 50.0, 55.7, None, None, None),
    ]
    assert [row[1] for row in rows_of(table, "Model B, two objects")] == ["paper"], "the default run is no Model B"
    assert rows_of(table, "Model C, mixture", "here")[0][4:] == (50.0, 40.0, 44.0, 40.0, 30.0, 34.0)
    assert rows_of(table, "Model D, C and real", "here") == [
        ("Model D, C and real", "here", f"{synthetic}; {real}", synthetic, 70.0, 45.0, 55.0, 60.0, 35.0, 45.0)
    ]
    assert rows_of(table, "real, all categories (upper bound)") == [
        ("real, all categories (upper bound)", "here", real, real, 60.0, 61.0, 60.5, 50.0, 51.0, 50.5)
    ]
    assert rows_of(table, "ZegFormer") == [("ZegFormer", "paper", real, None, 86.4, 63.6, 73.3, None, None, None)]


def test_a_default_run_that_trains_model_d_is_model_d_and_not_e():
    default = {**DEFAULT, **zs3(synthetic=(1, 1, 1), synthetic_and_real_seen=(70, 45, 55))}
    table = table2(default, NONE)
    assert rows_of(table, "Model D, C and real", "here")
    assert not rows_of(table, "Model E, D in scenes", "here")


def test_an_ablation_is_shown_once_one_of_its_experiments_was_run():
    assert ablation_table(DEFAULT, NONE, num_seen=15) is None
    runs = experiments(training_normal=grounding([91, 70, 71, 50, 40]))
    table = ablation_table(DEFAULT, runs, num_seen=15)
    assert {row[0] for row in table.rows} == {"training"}
    assert [row[:3] for row in table.rows] == [
        ("training", "normal", "here"),
        ("training", "without zero masks", "here"),
        ("training", "normal; PASCAL-sim split 1", "paper"),
        ("training", "without zero masks; PASCAL-sim split 1", "paper"),
    ]
    assert table.rows[0][3:] == (91.0, 70.0, 71.0, 50.0, 40.0, None, None)
    assert table.rows[1][3:] == (90.0, 80.0, 70.0, 60.0, 50.0, None, None)
    assert table.rows[2][3:] == (89.88, 71.18, 77.66, 57.24, 44.22, None, None)


@pytest.mark.parametrize(
    ("name", "title", "setting", "num_paper"),
    [
        ("objects_two", "objects in a prompt", "two", 3),
        ("seen_10", "seen categories", "10 seen", 5),
        ("data_real", "training data", "real (DDIM inversion)", 4),
    ],
)
def test_every_ablation_has_its_place(name, title, setting, num_paper):
    runs = grounding([5, 4, 3, 2, 1])
    runs["evaluate_grounding"]["real_images"] = {"grounding": {"seen": 7.0, "unseen": 6.0, "harmonic": 6.5}}
    table = ablation_table(DEFAULT, experiments(**{name: runs}), num_seen=15)
    assert rows_of(table, title, setting, "here") == [(title, setting, "here", 5.0, 4.0, 3.0, 2.0, 1.0, 7.0, 6.0)]
    assert len([row for row in table.rows if row[2] == "paper"]) == num_paper
    assert len([row for row in table.rows if row[2] == "here"]) == 2, "the experiment and the default run"


@pytest.mark.parametrize(("num_seen", "expected"), [(15, ["5", "15", "20"]), (65, ["5", "20", "65"])])
def test_the_default_run_has_its_own_number_of_seen_categories(num_seen, expected):
    runs = experiments(seen_05=grounding([5, 4, 3, 2, 1]), seen_20=grounding([6, 5, 4, 3, 2]))
    rows = rows_of(ablation_table(DEFAULT, runs, num_seen=num_seen), "seen categories")
    here = {row[1]: row[3] for row in rows if row[2] == "here"}
    assert list(here) == [f"{number} seen" for number in expected]
    assert (here["5 seen"], here["20 seen"], here[f"{num_seen} seen"]) == (5.0, 6.0, 90.0)


@pytest.mark.parametrize("vocabulary", ["coco", "sticker_coco"])
def test_on_coco_the_papers_rows_are_those_of_coco(vocabulary):
    assert rows_of(table1({}, vocabulary=vocabulary), "DAAM, split 2") == [
        ("DAAM, split 2", "paper", 60.08, 65.55, 48.80, 54.66, 33.22)
    ]
    table = table2({}, NONE, vocabulary=vocabulary)
    assert rows_of(table, "Model E, D in scenes")[0][4:7] == (53.4, 37.8, 44.3)
    assert not rows_of(table, "SIGN"), "not in the paper's COCO rows"
