import re
from importlib.resources import files

import pytest
import yaml

from diffground.errors import UserError
from diffground.vocabulary import load_vocabulary, photograph_of, with_article

SPLIT1 = ["tvmonitor", "car", "dog", "sofa", "train"]


def test_label_order_is_that_of_the_voc_devkit():
    vocabulary = load_vocabulary("pascal", unseen=SPLIT1)
    # devkit VOCinit: aeroplane is 1, person 15, tvmonitor 20
    assert [vocabulary.index(c) + 1 for c in ("aeroplane", "person", "tvmonitor")] == [1, 15, 20]


def test_seen_is_the_rest_of_unseen():
    vocabulary = load_vocabulary("pascal", unseen=SPLIT1)
    assert len(vocabulary.seen) == 15
    assert vocabulary.unseen == ("car", "dog", "sofa", "train", "tvmonitor")
    assert set(vocabulary.seen) | set(vocabulary.unseen) == set(vocabulary.categories)


def test_all_142_coappearing_pairs_are_there():
    vocabulary = load_vocabulary("pascal", unseen=SPLIT1)
    assert len(vocabulary.pairs) == len(set(vocabulary.pairs)) == 142
    assert ("sofa", "tvmonitor") in vocabulary.pairs
    assert ("aeroplane", "cat") not in vocabulary.pairs


def test_given_seen_categories_leave_the_others_unused():
    vocabulary = load_vocabulary("pascal", unseen=["dog"], seen=["person", "cat"])
    assert (vocabulary.seen, vocabulary.unseen) == (("cat", "person"), ("dog",))
    assert vocabulary.pairs == (("cat", "dog"), ("cat", "person"), ("dog", "person"))
    assert len(vocabulary.categories) == 20


def test_a_prompt_uses_the_words_of_a_category():
    vocabulary = load_vocabulary("pascal", unseen=SPLIT1)
    assert photograph_of(vocabulary.phrases["pottedplant"]) == "a photograph of a potted plant"
    assert photograph_of(vocabulary.phrases["aeroplane"]) == "a photograph of an aeroplane"


@pytest.mark.parametrize("name", ["pascal", "coco", "sticker_coco"])
def test_detector_names_are_labels_of_coco_detectors(name):
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_V2_Weights

    vocabulary = load_vocabulary(name, unseen=["car"])
    known = MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1.meta["categories"]
    assert len(vocabulary.detector_names) == {"pascal": 20, "coco": 79, "sticker_coco": 64}[name]
    assert set(vocabulary.detector_names.values()) <= set(known)
    assert vocabulary.detector_names["motorbike"] == "motorcycle"


@pytest.mark.parametrize(
    ("article", "phrases"),
    [
        ("a", "dog, tv monitor, horse, house, xylophone, 1 euro coin, 12-string guitar, 118 page book"),
        ("an", "aeroplane, Elephant, igloo, orange dog, umbrella, éclair, 8-ball, 18-wheeler, x-ray machine"),
        ("a", "unicorn, uniform, union, unique bird, unit, university, Universal joint, unidirectional sign"),
        ("an", "unidentified flying object, unimportant man, uninhabited island, uninvited guest"),
        ("an", "unideal place, unilluminated road, unimpressed cat, unironed shirt, unissued stamp, onion"),
        ("a", "European robin, euphonium, eucalyptus, ewe, used car, useful tool, user, usual day, one-way sign, once"),
        ("an", "egret, ermine, ewok, usher, ugly duckling, urchin, urn, urban street, utter mess, oneiric scene"),
        ("a", "ukulele, Ukrainian flag, Ugandan kob, UFO, USB stick, UV lamp, u-turn, utensil, utility pole, utopia"),
        ("a", "Ural owl, uranium rod, urinal, urologist, ubiquitous sparrow, ouija board"),
        ("an", "hour glass, hourglass, honest face, honour guard, honorable judge, heir, heiress, heirloom"),
        ("a", "houri, honeybee, heron, hotel, herb"),
    ],
)
def test_article_follows_the_sound(article, phrases):
    phrases = phrases.split(", ")
    assert [with_article(phrase) for phrase in phrases] == [f"{article} {phrase}" for phrase in phrases]


def test_template_of_one_and_two():
    assert photograph_of("dog") == "a photograph of a dog"
    assert photograph_of("dog", "potted plant") == "a photograph of a dog and a potted plant"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"unseen": ["motorbke"]}, "unseen: 'motorbke' is not one of the 20 categories; closest: motorbike."),
        ({"unseen": ["qqqq"]}, "closest: none. Known: aeroplane, bicycle"),
        ({"unseen": ["dog", "dog"]}, "vocabulary.unseen: 'dog' is named twice"),
        ({"unseen": ["dog"], "seen": ["cat", "dog"]}, "'dog' is both seen and unseen"),
        ({"unseen": ["dog"], "seen": ["catt"]}, "vocabulary.seen: 'catt'"),
    ],
)
def test_a_bad_split_is_one_line(arguments, expected):
    with pytest.raises(UserError) as caught:
        load_vocabulary("pascal", **arguments)
    assert expected in str(caught.value)


def test_at_least_one_category_stays_seen():
    everything = load_vocabulary("pascal", unseen=[]).categories
    with pytest.raises(UserError, match="at least one must be seen"):
        load_vocabulary("pascal", unseen=everything)


def test_unknown_table_and_unknown_category():
    expected = "vocabulary 'coco2': must be a .yaml file, or one of coco, pascal, sticker_coco; did you mean 'coco'?"
    with pytest.raises(UserError, match=re.escape(expected)):
        load_vocabulary("coco2", unseen=[])
    with pytest.raises(UserError, match="'zebra' is not one of the 20"):
        load_vocabulary("pascal", unseen=[]).index("zebra")


def test_the_coco_table():
    assert len(load_vocabulary("coco").categories) == 79  # 'mouse' is left out: the generator draws the animal
    vocabulary = load_vocabulary("coco", unseen=["cat"])
    assert vocabulary.index("person") == 0
    assert vocabulary.detector_names["sofa"] == "couch"
    assert vocabulary.detector_names["hot dog"] == vocabulary.phrases["hot dog"] == "hot dog"


@pytest.fixture(scope="module")
def art():
    """Every concept that the mini world has art of."""
    table = yaml.safe_load(files("diffground.data.stickers").joinpath("art.yaml").read_text())
    return {*table["voc"], *table["further"]}


def test_the_sticker_coco_table_is_what_the_mini_world_has_of_cocos(art):
    categories = load_vocabulary("sticker_coco").categories
    assert categories == tuple(category for category in load_vocabulary("coco").categories if category in art)
    assert set(load_vocabulary("pascal").categories) <= set(categories)
    assert ("zebra" in categories, "mushroom" in categories, "oven" in categories) == (True, False, False)


@pytest.mark.parametrize("name", ["pascal", "sticker_coco"])
def test_the_mini_world_has_every_category_of_its_tables(name, art):
    assert set(load_vocabulary(name).categories) <= art


def test_pairs_of_the_data_replace_those_of_the_table():
    vocabulary = load_vocabulary("coco", unseen=["cat"], seen=["dog", "pizza"])
    assert vocabulary.pairs == ()
    paired = vocabulary.with_pairs([("cat", "dog"), ("dog", "zebra"), ("dog", "pizza")])
    assert paired.pairs == (("cat", "dog"), ("dog", "pizza"))
    assert paired.seen == vocabulary.seen
