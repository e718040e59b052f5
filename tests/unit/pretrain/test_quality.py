"""Shares of what prompts ask for and images show, worked by hand."""

from __future__ import annotations

import pytest

from pretrain.quality import Asked, Outcome, category_rows, rates

PASCAL = ("dog", "cat")


def outcome(
    categories: str,
    *,
    detected: str = "",
    judged: str = "",
    asked_colour: str | None = None,
    asked_place: str | None = None,
    colour: str | None = None,
    place: str = "at dusk",
) -> Outcome:
    asked = Asked(prompt="", categories=tuple(categories.split()), seed=0, colour=asked_colour, place=asked_place)
    return Outcome(
        asked=asked,
        detected=frozenset(detected.split()),
        judged=frozenset(judged.split()),
        colour=colour,
        place=place,
    )


OUTCOMES = [
    outcome("dog", detected="dog", judged="dog"),
    outcome("dog", detected="dog", judged="dog cat"),  # the judge sees one thing too many
    outcome("dragon", judged="dragon"),  # the detector misses it
    outcome("cat", colour="red"),  # neither finds it, and it is red though no one asked
    outcome("dog cat", detected="dog cat", judged="dog"),
    outcome("dog dragon", detected="dog", judged="dog dragon"),
    outcome("dog", asked_colour="blue", colour="blue", detected="dog", judged="dog"),
    outcome("dragon", asked_colour="blue", colour=None),
    outcome("dog", asked_colour="red", colour="blue", judged="dog"),
    outcome("cat", asked_place="at night", place="at night"),
    outcome("cat", asked_place="on the sea", place="at dusk", detected="cat", judged="cat"),
]


def test_found_rates() -> None:
    found = rates(OUTCOMES, pascal=PASCAL)
    assert found["num_prompts"] == {
        "one_object": 4,
        "two_objects": 2,
        "coloured": 3,
        "placed": 2,
        "pascal_one_object": 3,
        "further_one_object": 1,
        "pascal_two_objects": 1,
        "further_two_objects": 1,
    }
    assert found["detector"] == {
        "one_object_found": 2 / 4,
        "two_objects_found": 1 / 2,  # the pair counts, not one of it
        "coloured_found": 1 / 3,
        "placed_found": 1 / 2,
        "pascal_one_object_found": 2 / 3,
        "further_one_object_found": 0,
        "pascal_two_objects_found": 1,
        "further_two_objects_found": 0,  # a pair with one further concept
    }
    assert found["judge"] == {
        "one_object_found": 3 / 4,
        "two_objects_found": 1 / 2,
        "coloured_found": 2 / 3,
        "placed_found": 1 / 2,
        "pascal_one_object_found": 2 / 3,
        "further_one_object_found": 1,
        "pascal_two_objects_found": 0,
        "further_two_objects_found": 1,
        "one_object_exact": 2 / 4,
        "two_objects_exact": 1 / 2,
    }


def test_colours_and_places_obeyed() -> None:
    found = rates(OUTCOMES, pascal=PASCAL)
    assert found["colours_obeyed"] == pytest.approx(1 / 3)
    assert found["colours_obeyed_by_word"] == {"blue": 1 / 2, "red": 0}
    assert found["no_colour_unasked"] == 3 / 4
    assert found["places_obeyed"] == 1 / 2
    assert found["places_obeyed_by_phrase"] == {"at night": 1, "on the sea": 0}


def test_what_was_not_asked_has_no_rate() -> None:
    found = rates([outcome("dragon", judged="dragon")], pascal=PASCAL)
    assert found["judge"]["further_one_object_found"] == 1
    assert found["judge"]["pascal_one_object_found"] is None
    assert found["colours_obeyed"] is None and found["colours_obeyed_by_word"] == {}


def test_a_row_a_category_the_least_found_first() -> None:
    rows = category_rows(OUTCOMES, pascal=PASCAL)
    assert [row["category"] for row in rows] == ["cat", "dog", "dragon"]
    assert rows[1] == {
        "category": "dog",
        "group": "pascal",
        "one_object_prompts": 2,
        "one_object_detector_found": 1,
        "one_object_judge_found": 1,
        "two_objects_prompts": 2,
        "two_objects_detector_found": 1,  # whatever became of the other one
        "two_objects_judge_found": 1,
        "coloured_prompts": 2,
        "colours_obeyed": 1 / 2,
    }
    assert rows[2]["group"] == "further"


def test_a_category_without_a_prompt_of_its_own_comes_last() -> None:
    rows = category_rows([outcome("dog cat", judged="cat"), outcome("cat")], pascal=PASCAL)
    assert [(row["category"], row["one_object_judge_found"]) for row in rows] == [("cat", 0), ("dog", None)]
