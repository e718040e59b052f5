from diffground.report.headline import headline
from diffground.report.spread import DEFAULT_MODULE, MODULES
from diffground.report.tables import TRAINING_TITLES, Table

METRICS = {
    "evaluate_grounding": {
        "grounding": {"one_unseen": 88.6, "two_unseen": 76.6},
        "daam": {"one_unseen": 25.9, "two_unseen": 16.1},
    },
    "evaluate_zs3": {
        "synthetic": {"seen": 56.8, "unseen": 40.0, "harmonic": 46.9},
        "real_all": {"seen": 64.1, "unseen": 55.2, "harmonic": 59.3},
    },
}
OURS = MODULES[DEFAULT_MODULE]


def numbers(tiles):
    return [(tile.score, tile.runs) for tile in tiles]


def test_six_numbers_of_one_run():
    tiles = headline(METRICS, {})
    assert numbers(tiles) == [
        ("88.6", "one run"),
        ("76.6", "one run"),
        ("25.9 / 16.1", "no training"),
        ("56.8", "one run"),
        ("40.0", "one run"),
        ("46.9", "one run"),
    ]
    assert [tile.reference[-4:] for tile in tiles[3:]] == ["64.1", "55.2", "59.3"], "the upper bound"


def test_spread_where_it_was_measured():
    spread = Table(
        header=("mIoU, %", "one seen", "one unseen", "two unseen", "seeds"),
        rows=(("another", "1.0 ± 0.1", "2.0 ± 0.1", "3.0 ± 0.1", 3), (OURS, "80.0 ± 1.0", "88.0 ± 0.5", None, 3)),
    )
    tiles = headline(METRICS, {"spread_protocol1": spread})
    assert numbers(tiles)[:2] == [
        ("88.0 ± 0.5", "mean ± standard deviation of 3 seeds"),
        ("76.6", "one run"),
    ]


def test_the_upper_bound_has_its_spread_too():
    spread = Table(
        header=("trained on", "harmonic mean", "seeds"),
        rows=((TRAINING_TITLES["synthetic"], "48.0 ± 2.0", 5), (TRAINING_TITLES["real_all"], "59.0 ± 1.0", 5)),
    )
    harmonic = headline(METRICS, {"spread_zs3": spread})[-1]
    assert (harmonic.score, harmonic.reference[-10:]) == ("48.0 ± 2.0", "59.0 ± 1.0")


def test_a_row_of_one_seed_is_one_run():
    spread = Table(header=("mIoU, %", "one unseen", "seeds"), rows=((OURS, "88.0", 1),))
    assert numbers(headline(METRICS, {"spread_protocol1": spread}))[0] == ("88.6", "one run")


def test_daam_at_its_best_and_no_upper_bound():
    metrics = {
        "evaluate_grounding": {
            **METRICS["evaluate_grounding"],
            "daam_best": {"one_unseen": 58.3, "two_unseen": None},
        },
        "evaluate_zs3": {"synthetic": {"seen": 56.8, "unseen": None, "harmonic": None}},
    }
    tiles = headline(metrics, {})
    assert numbers(tiles)[2:5] == [("58.3 / –", "no training"), ("56.8", "one run"), ("–", "one run")]
    assert "layers and thresholds fitted" in tiles[2].title and "upper bound" not in tiles[3].reference
