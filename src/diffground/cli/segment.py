"""`diffground segment`: words in images as users have them, as files. Weights are loaded only where work is left."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffground.cli.image_files import find_images, relative_to, result_names
from diffground.data.images import read_image
from diffground.errors import UserError
from diffground.interface.results import check_out_folder, read_record, same_settings, write_results
from diffground.interface.segment_files import ENDINGS, segment_files
from diffground.runtime.progress import Progress

Finder = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""uint8 (H, W, 3) -> disjoint masks bool (Q, H, W) and scores float32 (Q, H, W) of the words."""


def segment(
    arguments: Sequence[str],
    *,
    words: Sequence[str],
    settings: Mapping[str, Any],
    out: Path,
    overwrite: bool,
    load_finder: Callable[[], Finder],
) -> bool:
    """Write <name>.mask.png, <name>.overlay.png and <name>.json into `out` for each image, upright and in its size.

    arguments: files, folders and patterns, as find_images takes them.
    settings: all that decides the masks of an image. Images whose record has the same are skipped, unless `overwrite`.
    Images are read one at a time, so that the results of one never depend on the others.
    Returns: whether all images could be read; those that could not are listed on stderr.
    Raises: UserError where no image is found, and where `out` cannot be written.
    """
    found = find_images(arguments, out=out)
    check_out_folder(out)
    for note in found.notes:
        print(note, file=sys.stderr)
    named = list(zip(found.images, result_names(found.images, out), strict=True))
    todo = [(image, name) for image, name in named if overwrite or not _is_finished(image, out / name, settings)]
    num_skipped, failures, shown_in = len(named) - len(todo), list(found.failures), Counter[str]()
    if num_skipped:
        print(f"skipped: {num_skipped} finished with these settings before; --overwrite repeats them")
    if todo:
        find: Finder | None = None
        with Progress(len(named), description="segment", initial=num_skipped) as progress:
            for image, name in todo:
                try:
                    digest, pixels = _digest(image), read_image(image)
                except (UserError, OSError) as error:
                    failures.append((str(image), _reason(error, image)))
                else:
                    find = find or load_finder()  # takes seconds, for nothing where no image can be read
                    masks, scores = find(pixels)
                    contents, described = segment_files(
                        pixels,
                        words,
                        masks,
                        scores,
                        image=relative_to(image, out),
                        settings={**settings, "image_sha256": digest},
                    )
                    write_results(dict(zip(_files(out / name), contents, strict=True)))
                    shown_in.update(entry["word"] for entry in described if entry["area"])
                progress.advance()
        num_done = len(todo) - (len(failures) - len(found.failures))
        if num_done:
            print("\n".join(f"{word}: in {shown_in[word]} of {num_done} images" for word in words))
        print(f"{out}: {num_done} image{'' if num_done == 1 else 's'} done")
    if failures:
        print(f"not segmented: {len(failures)}", file=sys.stderr)
        for named_as, reason in failures:
            print(f"  {named_as}: {reason}", file=sys.stderr)
    return not failures


def _files(stem: Path) -> tuple[Path, Path, Path]:
    """Mask, overlay and record of an image."""
    mask, overlay, record = (stem.with_name(stem.name + ending) for ending in ENDINGS)
    return mask, overlay, record


def _is_finished(image: Path, stem: Path, settings: Mapping[str, Any]) -> bool:
    files = _files(stem)
    if not all(file.is_file() for file in files):
        return False
    try:
        return same_settings(read_record(files[-1]), {**settings, "image_sha256": _digest(image)})
    except OSError:  # it is reported when the image is read
        return False


def _digest(image: Path) -> str:
    with image.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: Exception, image: Path) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error).removeprefix(f"{image}: ")
