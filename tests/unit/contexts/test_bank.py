from dataclasses import replace

import pytest
import yaml

from diffground.contexts.bank import ContextBank, read_bank, write_bank
from diffground.errors import UserError
from diffground.prompts import PromptRecord
from diffground.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary("pascal", unseen=["dog"])
BANK = ContextBank(
    contexts={
        "dog": ("in tall grass", "in the snow"),
        "cat": ("in the snow", "asleep", "in tall grass"),
        "any": ("in the fog",),
    },
    source="scene",
)


def record(*categories):
    prompt = "a photograph of " + " and ".join(f"a {category}" for category in categories)
    return PromptRecord("synthesis-000003", prompt, categories, "one_seen", 7, "template")


def contexts_of(*categories, bank=BANK):
    given = record(*categories)
    options = bank.options(given)
    assert all(option.prompt.startswith(f"{given.prompt} ") for option in options)
    assert all(replace(option, prompt=given.prompt, source="template") == given for option in options)
    return [option.prompt.removeprefix(f"{given.prompt} ") for option in options]


def test_a_category_has_its_own_contexts_and_those_of_any():
    assert contexts_of("dog") == ["in tall grass", "in the snow", "in the fog"]
    assert contexts_of("bus") == ["in the fog"]


def test_a_pair_has_those_of_both_and_of_any_in_either_order():
    assert contexts_of("dog", "cat") == contexts_of("cat", "dog") == ["in the snow", "in tall grass", "in the fog"]
    assert contexts_of("dog", "bus") == ["in the fog"]


def test_without_any_there_may_be_none():
    assert contexts_of("dog", "bus", bank=replace(BANK, contexts={"dog": ("in the snow",)})) == []


def test_what_is_written_is_read_back(tmp_path):
    write_bank(tmp_path / "new/bank.yaml", BANK)
    assert read_bank(tmp_path / "new/bank.yaml", VOCABULARY) == BANK
    write_bank(tmp_path / "new/bank.yaml", None)
    assert read_bank(tmp_path / "new/bank.yaml", VOCABULARY).num_contexts == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["bank.yaml"]


def test_other_tables_categories_are_left_out(tmp_path):
    (tmp_path / "bank.yaml").write_text("zebra: [beside a horse]\ndog: [in   a\n  barn]\n")
    assert read_bank(tmp_path / "bank.yaml", VOCABULARY).contexts == {"dog": ("in a barn",)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("dgo: [asleep]", r"bank\.yaml: 'dgo' is no category; closest: dog"),
        ("dog: [with two Cats]", r"bank\.yaml: 'with two Cats' of 'dog' names 'cat', which gets no label; reword it"),
        ("any: [with a dog]", "'with a dog' of 'any' names 'dog'"),
        ("dog: asleep", r"bank\.yaml: 'dog' must have a list of texts, got 'asleep'"),
        ("dog: [3]", "'dog' must have a list of texts"),
        ("dog: ['']", "'dog' must have a list of texts"),
        ("- dog", r"bank\.yaml: must map categories to lists of contexts, got list"),
        ("dog: [", r"bank\.yaml: cannot be read as YAML"),
    ],
)
def test_a_bad_bank_is_one_line(tmp_path, content, message):
    (tmp_path / "bank.yaml").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_bank(tmp_path / "bank.yaml", VOCABULARY)
    assert "\n" not in str(caught.value)


def test_a_missing_bank_names_the_parameter(tmp_path):
    with pytest.raises(UserError, match=r"prompts\.contexts: no such file '.*none\.yaml'"):
        read_bank(tmp_path / "none.yaml", VOCABULARY)


def test_naming_ones_own_category_is_no_fault(tmp_path):
    (tmp_path / "bank.yaml").write_text(yaml.safe_dump({"dog": ["among other dogs"]}))
    assert read_bank(tmp_path / "bank.yaml", VOCABULARY).num_contexts == 1
