from diffground.report.steps_table import steps_table

METRICS = {
    "detect": {"test": {"per_category": {"cat": {"found": 3, "not_found": 1}, "tv": {"found": 0, "not_found": 0}}}},
    "evaluate_grounding": {
        "per_category": {
            "grounding": {"one_seen": {"cat": 85.0}, "one_unseen": {"tv": 88.0}, "two_seen": {"cat": 1.0}}
        },
        "real_images": {"per_category": {"grounding": {"tv": 66.0}}},
    },
    "evaluate_zs3": {"per_category": {"synthetic": {"cat": 43.0, "tv": 4.6}, "real_seen_only": {"cat": 50.0}}},
}


def test_the_scores_of_every_step_are_side_by_side():
    table = steps_table(METRICS, unseen=["tv"])
    assert table.header == (
        "%",
        "generator: found by the detector",
        "masks of generated images, IoU",
        "masks of real images, IoU",
        "segmenter: synthetic images, all categories",
    )
    assert table.rows == (("cat", 75.0, 85.0, None, 43.0), ("tv (unseen)", None, 88.0, 66.0, 4.6))


def test_without_scores_of_masks_there_is_no_table():
    assert steps_table({**METRICS, "evaluate_grounding": {}}, unseen=[]) is None
