"""The images that a user names: files, folders and patterns -> paths, and the names of their results."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diffground.errors import UserError
from diffground.interface.results import read_record

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""What a search in a folder takes for an image, in lower case. A file that is named itself may have any suffix."""

_MAX_STEM = 40
"""Characters kept of a long file name: names of results must stay below the 255 bytes of a file system."""


@dataclass
class FoundImages:
    """What the arguments name."""

    images: list[Path] = field(default_factory=list)
    """In the order of the arguments, folders sorted by path; each file once."""
    failures: list[tuple[str, str]] = field(default_factory=list)
    """Arguments that name no image, with the reason."""
    notes: list[str] = field(default_factory=list)
    """What was passed over, a line each."""


def find_images(arguments: Sequence[str], *, out: Path) -> FoundImages:
    """Files as they are, folders with all that is below them, patterns (* ? [ ] and ** for any depth).

    out: folder of the results; what lies in it is no input of a folder or a pattern.
    Raises: UserError where not a single image is found, and for a folder that lies in `out`.
    """
    found, seen, results = FoundImages(), set[Path](), out.resolve()
    num_foreign = num_results = num_repeated = 0
    for argument in arguments:
        path = Path(argument)
        if not argument:
            found.failures.append(("''", "an empty name; give a file, folder or pattern"))
            continue
        if path.is_file():
            candidates: Iterable[Path] = [path]
        elif path.is_dir():
            if path.resolve().is_relative_to(results):
                raise UserError(f"{argument}: lies in the folder of results, {out}; give another one with -o")
            candidates = _files_below(path, found.failures)
        elif glob.has_magic(argument):
            matches = [Path(name) for name in sorted(glob.glob(argument, recursive=True))]  # noqa: PTH207 - takes absolute ones
            candidates = (
                file
                for match in matches
                for file in ([match] if match.is_file() else _files_below(match, found.failures))
            )
        else:
            found.failures.append((argument, "no such file or folder"))
            continue
        num_before = len(found.images) + num_repeated
        for file in candidates:
            resolved = file.resolve()
            if file != path and resolved.is_relative_to(results):
                num_results += 1
            elif file != path and file.suffix.lower() not in IMAGE_SUFFIXES:
                num_foreign += 1
            elif resolved in seen:
                num_repeated += 1
            else:
                seen.add(resolved)
                found.images.append(file)
        if len(found.images) + num_repeated == num_before:
            found.failures.append((argument, "no image there" if path.is_dir() else "nothing matches the pattern"))
    if not found.images:
        listed = "; ".join(f"{argument}: {reason}" for argument, reason in found.failures[:3])
        raise UserError(f"no image found ({listed}); give files, folders or quoted patterns such as 'photos/*.jpg'")
    for num, what in (
        (num_foreign, f"files without the suffix of an image ({', '.join(IMAGE_SUFFIXES)})"),
        (num_results, f"files in the folder of results, {out}"),
        (num_repeated, "named more than once"),
    ):
        if num:
            found.notes.append(f"passed over, {what}: {num}")
    return found


def result_names(images: Sequence[Path], folder: Path) -> Iterator[str]:
    """The name of each image's results in `folder`: its stem, or where another image has it the stem and a digest.

    Another image may be one of `images` or one whose record, `folder`/<name>.json, is there: it keeps its results.
    """
    taken = set[str]()
    for image in images:
        relative = relative_to(image, folder)
        hashed = f"{image.stem[:_MAX_STEM]}-{hashlib.sha256(os.fsencode(relative)).hexdigest()[:8]}"
        is_free = (
            len(os.fsencode(image.stem)) <= 4 * _MAX_STEM
            and image.stem.casefold() not in taken
            and _owner(folder / f"{image.stem}.json") in (None, relative)
        )
        name = image.stem if is_free else hashed
        taken.add(name.casefold())
        yield name


def relative_to(image: Path, folder: Path) -> str:
    """Path of `image` as seen from `folder`, with symbolic links followed."""
    return Path(os.path.relpath(image.resolve(), folder.resolve())).as_posix()


def _owner(record: Path) -> str | None:
    """The image that a record is of, as relative_to gives it; '' for a file of another kind, None where none is."""
    if not os.path.lexists(record):
        return None
    owner = read_record(record).get("image")
    return owner if isinstance(owner, str) else ""


def _files_below(folder: Path, failures: list[tuple[str, str]]) -> Iterator[Path]:
    """All files below `folder`, sorted; hidden ones and links to folders are left out. Folders that cannot be listed
    are added to `failures`."""

    def report(error: OSError) -> None:
        failures.append((str(error.filename), error.strerror or str(error)))

    for parent, folders, files in os.walk(folder, onerror=report):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))
