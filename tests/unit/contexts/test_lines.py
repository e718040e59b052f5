import pytest

from diffground.contexts.lines import read_lines
from diffground.errors import UserError
from diffground.prompts import PromptRecord
from diffground.vocabulary import load_vocabulary

PASCAL = load_vocabulary("pascal", unseen=["dog"])
COCO = load_vocabulary("coco", unseen=["dog"])


def read(tmp_path, text, vocabulary=PASCAL):
    (tmp_path / "mine.txt").write_text(text)
    return read_lines(tmp_path / "mine.txt", vocabulary)


def record(*categories):
    return PromptRecord("synthesis-000003", "a photograph of …", categories, "one_seen", 7, "template")


def test_a_line_is_for_the_set_of_categories_that_it_names(tmp_path):
    lines = read(tmp_path, "# mine\n\nA dog  asleep\non the bus, a dog\na potted plant in a hall\na dog in the snow\n")
    assert [(o.prompt, o.categories, o.source) for o in lines.options(record("dog"))] == [
        ("A dog asleep", ("dog",), "file"),
        ("a dog in the snow", ("dog",), "file"),
    ]
    # categories in the order of the prompt, whatever that of the record
    [pair] = lines.options(record("dog", "bus"))
    assert (pair.prompt, pair.categories, pair.id, pair.seed) == (
        "on the bus, a dog",
        ("bus", "dog"),
        "synthesis-000003",
        7,
    )
    assert len(lines.options(record("pottedplant"))) == 1
    assert lines.options(record("cat")) == []
    assert lines.num_unused([record("dog"), record("cat")]) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a unicorn at dawn", r"mine\.txt, line 3: must name one or two categories of 'pascal', got none: 'a unicorn"),
        ("two dogs", "line 3: .* got none"),
        ("a hot dog", "line 3: .* got none"),
        ("a dog, a cat and a cow", "line 3: .* got 'dog', 'cat', 'cow'"),
        ("a dog among people", "line 3: names 'person' by other words than 'person', so that it gets no label"),
        ("a plant and a cat", "line 3: names 'pottedplant' by other words than 'potted plant'"),
    ],
)
def test_a_line_that_fits_no_prompt_is_named_by_its_number(tmp_path, line, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, f"a dog\n\n{line}\na cat\n")


def test_a_word_is_not_taken_from_anothers_words(tmp_path):
    for line, named in (("a dog and a hot dog", ("dog", "hot dog")), ("a hot dog and a dog", ("hot dog", "dog"))):
        assert read(tmp_path, line, COCO).options(record("hot dog", "dog"))[0].categories == named


def test_a_missing_or_empty_file(tmp_path):
    with pytest.raises(UserError, match=r"mine\.txt: holds no prompt"):
        read(tmp_path, "# nothing\n\n")
    with pytest.raises(UserError, match=r"prompts\.contexts: no such file"):
        read_lines(tmp_path / "none.txt", PASCAL)
    (tmp_path / "mine.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"mine\.txt: cannot be read as text"):
        read_lines(tmp_path / "mine.txt", PASCAL)
