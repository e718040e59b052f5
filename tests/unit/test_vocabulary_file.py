"""Vocabulary files as users write them."""

from collections import Counter

import pytest

from diffground.errors import UserError
from diffground.prompts import sample_synthesis_prompts, sample_training_prompts
from diffground.vocabulary import is_built_in, load_vocabulary

SNACKS = """\
categories:
  - dog
  - {name: person, words: [person, human being]}
  - {name: pallet jack, words: [pallet jack, jack], detector: null, status: unseen, colour: "#1f77b4"}
  - {name: Ölfass, status: unseen}
  - {name: hot-dog, status: off}
pairs: all
templates: ["a photograph of {objects}", "a drawing of {objects} on a table"]
"""


def write(folder, text):
    path = folder / "snacks.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_gives_categories_words_split_and_pairs(tmp_path):
    vocabulary = load_vocabulary(write(tmp_path, SNACKS))
    assert vocabulary.name == "snacks" and not is_built_in(tmp_path / "snacks.yaml")
    assert vocabulary.categories == ("dog", "person", "pallet jack", "Ölfass", "hot-dog")
    assert (vocabulary.seen, vocabulary.unseen) == (("dog", "person"), ("pallet jack", "Ölfass"))
    assert vocabulary.used == ("dog", "person", "pallet jack", "Ölfass")
    assert len(vocabulary.pairs) == 6 and ("dog", "hot-dog") not in vocabulary.pairs
    assert vocabulary.detector_names["dog"] == "dog" and vocabulary.detector_names["pallet jack"] is None
    assert vocabulary.colours == {"pallet jack": "#1f77b4"}


def test_another_split_replaces_that_of_the_file(tmp_path):
    vocabulary = load_vocabulary(write(tmp_path, SNACKS), unseen=["dog"])
    assert (vocabulary.seen, vocabulary.unseen) == (("person", "pallet jack", "Ölfass"), ("dog",))
    vocabulary = load_vocabulary(write(tmp_path, SNACKS), unseen=["dog"], seen=["hot-dog"])
    assert (vocabulary.seen, vocabulary.unseen) == (("hot-dog",), ("dog",))


def test_words_and_templates_take_turns(tmp_path):
    vocabulary = load_vocabulary(write(tmp_path, SNACKS))
    records = sample_synthesis_prompts(vocabulary, per_category=4, per_pair=2, seed=0)
    words = Counter(word for r in records for word in vocabulary.words_in(r.prompt, r.categories))
    assert words["person"] == words["human being"] == 5
    assert words["pallet jack"] == words["jack"] == 5
    assert sum(r.prompt.startswith("a drawing of") for r in records) == len(records) / 2
    assert len(words) == 6 and all(w in r.prompt for r in records for w in vocabulary.words_in(r.prompt, r.categories))
    training = sample_training_prompts(vocabulary, num_one=4, num_two=3, seed=0)
    assert {c for r in training for c in r.categories} == {"dog", "person"}


def test_the_longest_words_of_a_category_count(tmp_path):
    vocabulary = load_vocabulary(write(tmp_path, SNACKS))
    assert vocabulary.words_in("a pallet jack and a dog", ["dog", "pallet jack"]) == ["dog", "pallet jack"]
    assert vocabulary.words_in("A Jack", ["pallet jack"]) == ["jack"]
    assert vocabulary.words_in("jackets", ["pallet jack"]) == ["pallet jack"]


def test_as_many_categories_as_a_byte_has_labels(tmp_path):
    names = [f"thing {i}" for i in range(300)]
    fits = "".join(f"  - {{name: {name}, status: {'seen' if i >= 46 else 'off'}}}\n" for i, name in enumerate(names))
    vocabulary = load_vocabulary(write(tmp_path, f"categories:\n{fits}"))
    assert len(vocabulary.seen) == 254 and vocabulary.index("thing 299") == 253
    with pytest.raises(UserError, match="255 categories are in use, at most 254 fit into label maps of bytes"):
        load_vocabulary(write(tmp_path, f"categories:\n{fits}  - one more\n"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "must be a mapping with the key 'categories'"),
        ("- dog", "must be a mapping with the key 'categories'"),
        ("categories: [dog", "not a YAML file"),
        ("categories: []", "categories must be a list of one or more categories"),
        ("categories: dog", "categories must be a list of one or more categories"),
        ("categories: [dog]\npair: all", "unknown key 'pair'; known: categories, pairs, templates"),
        ("categories: [dog]\ncategories: [cat]", "'categories' is given twice"),
        ("categories: [dog, cat, dog]", "categories has 'dog' twice"),
        ("categories: [dog, {name: cat, words: [Dog]}]", "words has 'dog' twice"),
        ("categories: [no]", "category 1: name must be text, got False; put it in quotes"),
        ("categories: [3]", "category 1: name must be text, got 3; put it in quotes"),
        ("categories: ['']", "category 1: name must not be empty"),
        ("categories: [a/b]", "category 1: name must not be empty and have no slash, got 'a/b'"),
        ("categories: [{words: [dog]}]", "category 1: name must be text, got None"),
        ("categories: [{name: dog, word: [cat]}]", "category 1: unknown key 'word'; known: name, words"),
        ("categories: [{name: dog, words: []}]", "('dog'): words must be a list of one or more texts, got []"),
        ("categories: [{name: dog, status: sen}]", "('dog'): status must be one of seen, unseen, off, got 'sen'"),
        ("categories: [{name: dog, colour: red}]", "('dog'): colour must be like \"#1f77b4\", in quotes, got 'red'"),
        ("categories: [{name: dog, status: unseen}]", "all 1 categories in use are unseen; at least one must be seen"),
        ("categories: [dog, cat]\npairs: some", "pairs must be all, none or a list of pairs"),
        ("categories: [dog, cat]\npairs: [[dog]]", "pair 1 must be two different categories, got ['dog']"),
        ("categories: [dog, cat]\npairs: [[dog, cow]]", "pair 1 names 'cow', which is not one of its categories"),
        ("categories: [dog, cat]\npairs: [[dog, cat], [cat, dog]]", "pairs has 'dog and cat' twice"),
        ("categories: [dog]\ntemplates: [a photo]", "a template must contain {objects} once, got 'a photo'"),
        (f"categories: [{'x' * 61}]", "name has 61 bytes, at most 60 fit"),
    ],
)
def test_a_bad_file_is_one_line_that_names_file_and_entry(tmp_path, text, expected):
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_vocabulary(path)
    line = str(caught.value)
    assert expected in line and line.startswith(str(path)) and "\n" not in line


def test_a_missing_file_says_what_writes_one(tmp_path):
    with pytest.raises(UserError, match="no such vocabulary file; `diffground new` writes one"):
        load_vocabulary(tmp_path / "none.yaml")
