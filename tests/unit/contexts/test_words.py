import pytest

from diffground.contexts.words import known_categories, named_categories, phrases_in
from diffground.vocabulary import load_vocabulary


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("in the rain", []),
        ("beside two buses and a Knife", ["bus", "knife"]),
        ("with people at a table", ["person", "diningtable"]),
        ("near a couch, a sofa and a tv", ["sofa", "tvmonitor"]),
        ("eating a hot dog", ["hot dog"]),
        ("a teddy bear and a bear", ["teddy bear", "bear"]),
        ("on a tablecloth in a carpark, catching a doggedly oxbow", []),  # within words
        ("a carrot", ["carrot"]),
        ("the mice", ["mouse"]),
    ],
)
def test_named_categories(text, expected):
    assert named_categories(text, known_categories()) == expected


def test_only_the_categories_asked_for():
    assert named_categories("a hot dog, a dog and a zebra", ["dog", "cat"]) == ["dog"]
    assert named_categories("a hot dog", ["dog"]) == []


def test_there_are_80_categories():
    assert len(known_categories()) == 80  # COCO's; PASCAL's 20 are among them


def test_phrases_are_the_words_of_the_template():
    phrases = load_vocabulary("pascal", unseen=["dog"]).phrases
    assert phrases_in("Two dogs, a Potted Plant, a hot dog, a sofa and a plant", phrases) == ["pottedplant", "sofa"]
    assert phrases_in("a dog, a Potted Plant and a dog", phrases) == ["dog", "pottedplant"]
