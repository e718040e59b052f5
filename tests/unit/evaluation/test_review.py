"""A person's verdicts: read, matched with what was looked at, and put before the automatic check."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from diffground.data.labelled import LabelledSample, image_sample, oracle_sample
from diffground.data.review import COLUMNS, Review, look_of, read_review, same_look, write_review
from diffground.errors import UserError
from diffground.evaluation.methods import foreground_method
from diffground.evaluation.protocol1 import Protocol1Result, run_protocol1

SIZE = 9
HEADER = ",".join(COLUMNS)


def image(seed: int) -> np.ndarray:
    """Nine random colours, one a ninth."""
    colours = np.random.default_rng(seed).integers(8, 248, (3, 3, 3)).astype(np.uint8)
    return colours.repeat(3, axis=0).repeat(3, axis=1)


def columns(start: int, stop: int) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[:, start:stop] = True
    return mask


def sample(
    key: str,
    masks: dict[str, np.ndarray],
    categories: tuple[str, ...] = ("dog",),
    pixels: np.ndarray | None = None,
    prompt: str | None = None,
) -> LabelledSample:
    prompt = prompt or f"a photograph of {', '.join(categories)}"
    pixels = image(0) if pixels is None else pixels
    return LabelledSample(
        image_sample(id=key, prompt=prompt, categories=categories, group="one_seen", settings={}, image=pixels),
        oracle_sample(key, categories=categories, masks=masks),
    )


GOOD = sample("test-000000", {"dog": columns(0, 4)})
LARGE = sample("test-000001", {"dog": columns(0, 9)})
MISSED = sample("test-000002", {})
OTHER = sample("test-000003", {"dog": columns(4, 9)})


def review(path: Path, **verdicts: str) -> Review:
    samples = {"good": GOOD, "large": LARGE, "missed": MISSED, "other": OTHER}
    write_review(
        path,
        [(samples[n].key, samples[n].prompt, look_of(samples[n]), verdict, "") for n, verdict in verdicts.items()],
    )
    return read_review(path)


def run(of: Review | None, *samples: LabelledSample) -> Protocol1Result:
    given = samples or (GOOD, LARGE, MISSED, OTHER)
    return run_protocol1(given, {"f": foreground_method}, groups=("one_seen",), batch_size=2, review=of)


def test_the_look_is_worked_by_hand() -> None:
    expected = "".join(f"{int(value) // 16:x}" for value in image(0)[::3, ::3].ravel())
    # columns 0 to 3: the first third whole, a third of the second (85 of 255, 5 of 15)
    assert look_of(GOOD) == f"{expected}-{'f50' * 3}"
    two = sample("x", {"cat": columns(6, 9)}, categories=("dog", "cat"))
    assert look_of(two) == f"{expected}-{'0' * 9}-{'00f' * 3}"


def test_a_look_survives_rounding_and_nothing_else() -> None:
    noisy = image(0).astype(int) + np.random.default_rng(1).integers(-2, 3, (SIZE, SIZE, 3))
    same = sample("test-000000", {"dog": columns(0, 4)}, pixels=noisy.clip(0, 255).astype(np.uint8))
    assert same_look(look_of(same), look_of(GOOD))
    for seed in range(1, 20):
        assert not same_look(look_of(sample("x", {"dog": columns(0, 4)}, pixels=image(seed))), look_of(GOOD))
    assert not same_look(look_of(sample("x", {"dog": columns(0, 5)})), look_of(GOOD))
    assert not same_look(look_of(sample("x", {})), look_of(GOOD))
    assert not same_look("", look_of(GOOD)) and not same_look("g" * 27, "f" * 27)


def test_verdicts_go_before_the_check(tmp_path: Path) -> None:
    assert run(None).metrics()["num_rejected"] == {"not_found": 1, "bad_area": 1, "same_object": 0, "reviewed": 0}
    result = run(review(tmp_path / "r.csv", good="rejected", large="accepted"))
    assert result.num_images == {"one_seen": 2}  # the large one and the one that nobody reviewed
    assert result.num_rejected == {"not_found": 1, "bad_area": 0, "same_object": 0, "reviewed": 1}
    assert result.metrics()["num_reviewed"] == 2


def test_a_review_without_rows_changes_nothing(tmp_path: Path) -> None:
    assert run(review(tmp_path / "r.csv")).metrics() == run(None).metrics()


def test_what_was_not_found_cannot_be_judged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = run(review(tmp_path / "r.csv", missed="accepted"))
    [warning] = caplog.messages
    assert re.search(r"r\.csv: 1 accepted samples are not judged.*: test-000002$", warning)
    assert result.num_rejected == {"not_found": 1, "bad_area": 1, "same_object": 0, "reviewed": 0}


def test_a_stale_review_is_refused(tmp_path: Path) -> None:
    of = review(tmp_path / "r.csv", good="accepted", other="rejected")
    with pytest.raises(UserError, match=r"r\.csv, line 3: 'test-000003' is not one of the 2 samples"):
        run(of, GOOD, LARGE)
    with pytest.raises(UserError, match=r"line 2: 'test-000000' was reviewed with the prompt 'a photograph of dog'"):
        run(of, sample("test-000000", {"dog": columns(0, 4)}, prompt="a photograph of a cat"), OTHER)
    for changed in (
        sample("test-000000", {"dog": columns(0, 4)}, pixels=image(5)),
        sample("test-000000", {"dog": columns(0, 7)}),
    ):
        with pytest.raises(UserError, match="line 2: 'test-000000' was reviewed with another image or other masks"):
            run(of, changed, OTHER)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", rf"r\.csv, line 1: must be {HEADER}, got nothing"),
        ("id;prompt;look;verdict;note\n", "line 1: must be id,prompt,look,verdict,note, got id;prompt"),
        (f"{HEADER}\na,p,l,accepted,\n\nb,p,l,good,\n", "line 4: verdict must be accepted or rejected, got 'good'"),
        (f"{HEADER}\na,p,l,accepted\n", r"line 2: must have 5 fields, got 4"),
        (f'{HEADER}\na,p,l,accepted,"two\nlines"\na,p,l,rejected,\n', "line 4: 'a' is there twice, see line 3"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_review(tmp_path / "r.csv")


def test_without_a_file_nothing_was_reviewed(tmp_path: Path) -> None:
    assert read_review(tmp_path / "r.csv").entries == {}


def test_what_a_spreadsheet_saved_is_read(tmp_path: Path) -> None:
    text = f'\ufeff{HEADER}\r\na,"a dog, a cat",l,accepted,\r\n,,,,\r\n'
    (tmp_path / "r.csv").write_bytes(text.encode())
    [entry] = read_review(tmp_path / "r.csv").entries.values()
    assert (entry.id, entry.prompt, entry.verdict, entry.line) == ("a", "a dog, a cat", "accepted", 2)


def test_the_committed_review_can_be_read() -> None:
    assert read_review(Path(__file__).parents[3] / "review/test/mini.csv").entries == {}
