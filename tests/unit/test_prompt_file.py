import pytest

from diffground.prompts import PromptFile, PromptRecord, prompts_digest, read_prompts, write_prompts

RECORDS = [
    PromptRecord(
        id=f"train-{i:06d}",
        prompt=f"a dog {i} \u2028é" * i,
        categories=("dog",),
        group="one_seen",
        seed=i,
        source="template",
    )
    for i in range(7)
]


@pytest.fixture
def file(tmp_path):
    write_prompts(tmp_path / "prompts.jsonl", RECORDS)
    return PromptFile(tmp_path / "prompts.jsonl")


def test_it_is_the_list_that_was_written(file, tmp_path):
    assert len(file) == 7
    assert list(file) == RECORDS == read_prompts(tmp_path / "prompts.jsonl")
    for index in (0, 6, -1, -7):
        assert file[index] == RECORDS[index]
    for part in (slice(None), slice(2, 5), slice(5, 99), slice(4, 4), slice(None, None, 3)):
        assert file[part] == RECORDS[part]
    for index in (7, -8):
        with pytest.raises(IndexError):
            file[index]


def test_an_empty_file_has_no_records(tmp_path):
    write_prompts(tmp_path / "none.jsonl", [])
    assert list(PromptFile(tmp_path / "none.jsonl")) == []


def test_the_digest_tells_any_change(file):
    assert prompts_digest(file) == prompts_digest(RECORDS)
    assert len({prompts_digest(RECORDS[:n]) for n in range(8)} | {prompts_digest(RECORDS[::-1])}) == 9
