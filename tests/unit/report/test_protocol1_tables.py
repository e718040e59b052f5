from diffground.report.protocol1_tables import (
    category_table,
    detection_category_table,
    detection_table,
    extra_table,
)

METRICS = {
    "boundary_miou": {"grounding": {"one_seen": 70.0, "two_unseen": None}, "daam": {"one_seen": 20.0}},
    "nmi": {"grounding": {"one_seen": 60.0}},
    "per_category": {
        "grounding": {
            "one_seen": {"cat": 90.0},
            "one_unseen": {"dog": 80.0},
            "two_seen": {"cat": 70.0},
            "two_seen_unseen": {"cat": 60.0, "dog": 50.0},
            "two_unseen": {},
        },
        "daam": {"one_seen": {"cat": 10.0}, "one_unseen": {"dog": None}},
    },
    "num_rejected": {"not_found": 28, "bad_area": 0, "same_object": 1, "reviewed": 4},
}


def test_other_scores_by_method_and_group():
    assert extra_table(METRICS).rows == (
        ("boundary mIoU, %", "grounding module", 70.0, None, None, None, None),
        ("boundary mIoU, %", "DAAM", 20.0, None, None, None, None),
        ("normalised mutual information, %", "grounding module", 60.0, None, None, None, None),
    )
    assert extra_table({"num_rejected": {}}) is None


def test_a_category_is_scored_in_the_groups_of_its_kind():
    table = category_table(METRICS, unseen=["dog"])
    assert table.header[:4] == (
        "IoU, %",
        "grounding module, alone",
        "grounding module, with one of its kind",
        "grounding module, seen with unseen",
    )
    assert table.rows == (
        ("cat", 90.0, 70.0, 60.0, 10.0, None, None),
        ("dog (unseen)", 80.0, None, 50.0, None, None, None),
    )
    assert category_table({}, unseen=[]) is None


def test_detections_counts_what_was_skipped():
    table = detection_table(
        {
            "detect": {"train": {"num_images": 1200, "one_object_all_found_frac": 0.988}},
            "train_grounding": {
                "num_samples": 1200,
                "num_skipped_samples": 6,
                "num_queries": 1900,
                "num_skipped_queries": 38,
            },
            "evaluate_grounding": METRICS,
        }
    )
    assert table.rows == (
        ("training images", 1200),
        ("training images, one object: all found, %", 98.8),
        ("training images skipped, nothing found", 6),
        ("categories named in training images", 1900),
        ("categories named but skipped, not found", 38),
        ("test images not judged: a category not found", 28),
        ("test images not judged: a mask too small or too large", 0),
        ("test images not judged: two categories on one object", 1),
        ("test images not judged: rejected by a person", 4),
    )
    assert detection_table({}) is None


def test_detections_of_each_category():
    detect = {
        "train": {"per_category": {"cat": {"found": 50, "not_found": 2}}},
        "test": {"per_category": {"cat": {"found": 9, "not_found": 0}, "dog": {"found": 7, "not_found": 3}}},
    }
    rejected = {"dog": {"not_found": 4, "bad_area": 1, "same_object": 0, "reviewed": 0}}
    metrics = {"detect": detect, "evaluate_grounding": {"num_rejected_per_category": rejected}}
    assert detection_category_table(metrics, unseen=["dog"]).rows == (
        ("cat", 50, 2, 9, 0, 0),
        ("dog (unseen)", 0, 0, 7, 3, 5),
    )
    before = detection_category_table({"detect": detect, "evaluate_grounding": METRICS}, unseen=[])
    assert [row[-1] for row in before.rows] == [None, None], "metrics of an older run do not tell"
    assert detection_category_table({"detect": {"train": {"num_images": 3}}}, unseen=[]) is None
