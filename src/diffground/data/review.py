"""A person's verdicts on samples: on the triplets of Protocol I, which go before the automatic check (the authors
checked by hand), and on synthetic samples, of which the rejected ones are not trained on.

A CSV file: id, prompt, look, verdict (accepted | rejected), note. `diffground studio` writes it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from diffground.atomic import write_atomically
from diffground.data.labelled import LabelledSample, oracle_sample
from diffground.errors import UserError

COLUMNS = ("id", "prompt", "look", "verdict", "note")
ACCEPTED, REJECTED = "accepted", "rejected"
_GRID = (3, 3)
_LOOK_AGAIN = "run `diffground studio` and look again, or delete the line"


@dataclass(frozen=True)
class ReviewEntry:
    """One row. `look`: see look_of; `line`: its number in the file, from 1."""

    id: str
    prompt: str
    look: str
    verdict: str
    note: str
    line: int

    def problem_with(self, sample: LabelledSample) -> str | None:
        """Why the verdict is not about this sample; None where it is."""
        if self.prompt != sample.prompt:
            return f"was reviewed with the prompt '{self.prompt}', which is now '{sample.prompt}'"
        if not same_look(self.look, look_of(sample)):
            return "was reviewed with another image or other masks"
        return None


@dataclass(frozen=True)
class Review:
    """The rows of `path` by id; empty if nothing was reviewed."""

    path: Path
    entries: Mapping[str, ReviewEntry] = field(default_factory=dict)

    def verdict(self, sample: LabelledSample) -> str | None:
        """ACCEPTED, REJECTED, or None where the sample was not reviewed. Raises: UserError for a stale row."""
        entry = self.entries.get(sample.key)
        if entry is None:
            return None
        problem = entry.problem_with(sample)
        if problem is not None:
            raise UserError(f"{self.path}, line {entry.line}: '{entry.id}' {problem}; {_LOOK_AGAIN}")
        return entry.verdict

    def require_known(self, ids: Iterable[str]) -> None:
        """Raises: UserError for a row whose id is not among `ids`, those of all samples."""
        known = set(ids)
        for entry in self.entries.values():
            if entry.id not in known:
                raise UserError(
                    f"{self.path}, line {entry.line}: '{entry.id}' is not one of the {len(known)} samples; "
                    f"{_LOOK_AGAIN}"
                )


def read_review(path: Path) -> Review:
    """The reviewed samples of `path`; empty if there is no such file.

    Raises: UserError with file, line and value for another header, a short row, another verdict, and an id that comes
    twice.
    """
    try:
        # spreadsheets begin a file with a byte order mark
        reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig")))
        rows = [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        return Review(path=path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV ({error}); {_LOOK_AGAIN}") from None
    header = rows[0][1] if rows else []
    if tuple(header) != COLUMNS:
        found = ",".join(header) or "nothing"
        raise UserError(f"{path}, line 1: must be {','.join(COLUMNS)}, got {found}")
    entries: dict[str, ReviewEntry] = {}
    for line, row in rows[1:]:
        if not any(row):
            continue
        if len(row) != len(COLUMNS):
            raise UserError(f"{path}, line {line}: must have {len(COLUMNS)} fields, got {len(row)}")
        entry = ReviewEntry(**dict(zip(COLUMNS, row, strict=True)), line=line)
        if entry.verdict not in (ACCEPTED, REJECTED):
            raise UserError(f"{path}, line {line}: verdict must be {ACCEPTED} or {REJECTED}, got '{entry.verdict}'")
        if entry.id in entries:
            raise UserError(f"{path}, line {line}: '{entry.id}' is there twice, see line {entries[entry.id].line}")
        entries[entry.id] = entry
    return Review(path=path, entries=entries)


def write_review(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """Write rows of COLUMNS under their header, whole or not at all."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    write_atomically(path, text.getvalue())


def look_of(sample: LabelledSample) -> str:
    """What a reviewer saw, in few digits: the same for the same image and masks on any machine, see same_look.

    In hexadecimal, 0..f: mean red, green and blue of each ninth of the image, row by row; then for each category that
    the prompt names the share of each ninth that its mask covers (0 where it was not found).
    """
    masks = sample.masks()
    parts = [_ninths(Image.fromarray(sample.image()).convert("RGB"))]
    for category in sample.categories:
        mask = masks.get(category, np.zeros((1, 1), dtype=bool))
        parts.append(_ninths(Image.fromarray(mask.astype(np.uint8) * 255)))
    return "-".join(parts)


def same_look(a: str, b: str) -> bool:
    """Whether no digit differs by more than 1, as rounding may make it between machines."""
    if [len(part) for part in a.split("-")] != [len(part) for part in b.split("-")]:
        return False
    try:
        return all(abs(int(x, 16) - int(y, 16)) <= 1 for x, y in zip(a, b, strict=True) if (x, y) != ("-", "-"))
    except ValueError:
        return False


def with_masks_of_label(sample: LabelledSample, categories: Sequence[str]) -> LabelledSample:
    """A sample of stage synthesize, with the masks that its label map gives to the categories that its prompt names.

    categories: of the label map, in label order. Raises: UserError for a named category that is not among them.
    """
    unknown = [name for name in sample.categories if name not in categories]
    if unknown:
        raise UserError(
            f"{sample.sample.place} is of category '{unknown[0]}', which is not one of the {len(categories)} of the "
            "vocabulary; set the vocabulary of params.yaml to that of the shards"
        )
    label = sample.label()
    masks = {name: label == categories.index(name) + 1 for name in sample.categories}
    found = {name: mask for name, mask in masks.items() if np.any(mask)}
    return replace(sample, oracle=oracle_sample(sample.key, categories=sample.categories, masks=found))


def _ninths(image: Image.Image) -> str:
    small = np.asarray(image.resize(_GRID, Image.Resampling.BOX))
    return "".join(f"{value >> 4:x}" for value in small.ravel().tolist())
