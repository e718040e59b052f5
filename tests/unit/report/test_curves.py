from diffground.report.curves import curve_points, write_curves
from diffground.report.experiments import Experiments, Setup

DEFAULT = {"evaluate_grounding": {"grounding": {"one_seen": 80.0}}}


def experiments(**scores):
    metrics = {name: {"evaluate_grounding": {"grounding": {"one_seen": score}}} for name, score in scores.items()}
    return Experiments(setup=Setup("mini", "m", "s"), metrics=metrics, left_out=())


def test_points_are_in_order_with_the_default_run_in_its_place():
    runs = experiments(timestep_10=20.0, timestep_02=70.0, seen_05=1.0)
    points = curve_points(DEFAULT, runs, prefix="timestep", default=5)
    assert [(x, scores["one_seen"]) for x, scores in points.items()] == [(2, 70.0), (5, 80.0), (10, 20.0)]


def test_the_default_run_is_no_curve_alone():
    assert curve_points(DEFAULT, experiments(seen_05=1.0), prefix="timestep", default=1) == {}


def test_an_experiment_that_stopped_before_the_score_is_no_point():
    runs = Experiments(setup=Setup("mini", "m", "s"), metrics={"timestep_02": {"detect": {}}}, left_out=())
    assert curve_points(DEFAULT, runs, prefix="timestep", default=1) == {}


def test_draws_only_what_was_swept_and_the_same_bytes_twice(tmp_path):
    arguments = {"tapped_step": 1, "num_seen": 15, "num_categories": 20}
    write_curves(DEFAULT, experiments(), tmp_path / "none", **arguments)
    assert not (tmp_path / "none").exists()
    for name in ("a", "b"):
        write_curves(DEFAULT, experiments(seen_05=60.0, seen_10=70.0), tmp_path / name, **arguments)
        assert [path.name for path in (tmp_path / name).iterdir()] == ["seen_categories.png"]
    assert (tmp_path / "a/seen_categories.png").read_bytes() == (tmp_path / "b/seen_categories.png").read_bytes()
    write_curves(DEFAULT, experiments(timestep_03=60.0), tmp_path / "c", **arguments)
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["timestep.png"]
