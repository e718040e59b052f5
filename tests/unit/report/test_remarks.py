import pytest

from diffground.report.remarks import remarks

GROUPS = ("one_seen", "one_unseen", "two_seen", "two_seen_unseen", "two_unseen")


def daam(score, split="1", vocabulary="pascal"):
    return remarks({"daam": dict.fromkeys(GROUPS, score)}, split=split, vocabulary=vocabulary)


# the paper's DAAM on split 1: 61.66, 75.63, 46.74, 51.31, 69.94, mean 61.056; half of it is 30.528
@pytest.mark.parametrize(("score", "said"), [(0.0, True), (30.5, True), (30.6, False), (61.0, False), (90.0, False)])
def test_a_daam_below_half_of_the_papers_is_told(score, said):
    found = daam(score)
    assert set(found) == ({"protocol1"} if said else set())
    if said:
        assert found["protocol1"].startswith(f"DAAM is far below the paper's ({score:.1f} against 61.1, mean of the")


def test_daam_is_judged_by_the_paper_s_split_and_data_set():
    # mean of the five groups: split 3 of PASCAL-sim 51.884, the average of COCO-sim 52.446
    assert "(20.0 against 51.9," in daam(20.0, split="3")["protocol1"]
    assert "(20.0 against 52.4," in daam(20.0, split="average", vocabulary="coco")["protocol1"]


def test_a_group_without_a_score_is_left_out_on_both_sides():
    # one_seen 61.66 and two_unseen 69.94 of the paper: 65.8
    found = remarks({"daam": {"one_seen": 10.0, "one_unseen": None, "two_unseen": 20.0}}, split="1")
    assert "(15.0 against 65.8, mean of the groups)" in found["protocol1"]


def on_real(grounding, reference):
    keys = ("seen", "unseen", "harmonic")
    tables = {
        name: dict(zip(keys, scores, strict=True))
        for name, scores in (("grounding", grounding), ("foreground_only", reference))
    }
    return remarks({"real_images": tables}, split="1").get("real_images")


def test_grounding_below_the_reference_on_real_images_is_told_with_the_scores_that_are():
    sentence = on_real((49.0, 70.0, 57.6), (63.1, 66.9, 64.9))
    assert sentence is not None
    assert sentence.endswith("as the mask of each: seen 49.0 against 63.1, harmonic mean 57.6 against 64.9.")


def test_grounding_that_is_as_good_as_the_reference_needs_no_word():
    assert on_real((63.1, 67.0, 65.0), (63.1, 66.9, 64.9)) is None
    assert on_real((63.1, None, None), (63.1, 66.9, 64.9)) is None


def test_scores_that_were_not_measured_need_no_word():
    assert remarks({}, split="1") == {}
