"""Images in a plain folder, with or without masks, as lists of data/real.

ROOT/images/**            any image files, also in folders
ROOT/masks/**             the mask of an image: the same path with the suffix .png (or .tif, .bmp): category i as i + 1,
                          0 background, 255 ignored (optional)
ROOT/<list>.txt           which images are for training and for evaluation, one per line: the path below images, with or
                          without suffix (optional). Without lists, all images are for evaluation
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffground.data.image_lists import IMAGE_SUFFIXES, MASK_SUFFIXES, Files, read_list, require_files, sample_ids
from diffground.data.images import is_stored_upright, read_image, stored_and_upright_size
from diffground.data.masks import is_binary, read_index_image, read_mask
from diffground.data.palette import IGNORE
from diffground.data.voc import VocItem, write_voc
from diffground.errors import UserError
from diffground.runtime.progress import Progress

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class FolderCounts:
    """What prepare_folder wrote of one list."""

    num_images: int
    num_unlabelled: int
    """Images without a mask: every pixel is ignored."""
    num_binary: int
    """Masks of only 0 and 255, in which 255 was read as `binary_label`."""


def prepare_folder(
    source: Path, root: Path, *, train_list: str, val_list: str, num_categories: int, binary_label: int | None = None
) -> dict[str, FolderCounts]:
    """Write the images of a folder as two lists of devkit `root`; what was written, by list.

    An image without a mask is labelled 255, ignored, everywhere. Images with an EXIF orientation are written upright,
    as JPEG; where only the stored pixels have the mask's size, and for all others, the file is copied byte for byte.
    `binary_label`: what 255 means in a mask that holds only 0 and 255, see read_mask.

    Everything is read once before anything is written, so that errors come first. Raises: UserError for a folder
    without images, an image or mask that cannot be read, a mask without image, of another size or that read_mask
    refuses, a list with unknown or repeated images, and a list whose masks have no labelled pixel.
    """
    folder = _Folder(source, num_categories, binary_label)
    lists = folder.lists(train_list, val_list)
    names = sample_ids([*dict.fromkeys(id_ for ids in lists.values() for id_ in ids)])
    counts = {name: folder.check(ids, image_list=name) for name, ids in lists.items()}
    if binary_label is not None and not any(count.num_binary for count in counts.values()):
        _LOGGER.warning("data.binary_label: no mask holds only 0 and 255, so it is not used")
    for name, ids in lists.items():
        write_voc(root, name, folder.items(ids, names, description=f"write list '{name}'"))
    return counts


class _Folder:
    def __init__(self, source: Path, num_categories: int, binary_label: int | None) -> None:
        if not source.is_dir():
            raise UserError(f"{source}: no such data folder; set data.root to one that has a folder 'images'")
        self._source, self._num_categories, self._binary_label = source, num_categories, binary_label
        self._images = Files(source / "images", suffixes=IMAGE_SUFFIXES, recursive=True)
        self._masks = Files(source / "masks", suffixes=MASK_SUFFIXES, recursive=True)
        if not self._images.ids():
            raise UserError(
                f"{source / 'images'}: has no images ({', '.join(IMAGE_SUFFIXES)}); put the images there, and their "
                f"masks, if there are any, into {source / 'masks'}"
            )
        for files, what in ((self._images, "no image"), (self._masks, f"no mask ({', '.join(MASK_SUFFIXES)})")):
            if files.other:
                _LOGGER.warning(
                    "%s: %d files are skipped, as their suffix is that of %s; the first is %s",
                    files.folder, len(files.other), what, files.other[0],
                )  # fmt: skip
        without_image = [id_ for id_ in self._masks.ids() if id_ not in self._images]
        if without_image:
            raise UserError(
                f"{self._masks.path(without_image[0])}: there is no image {self._images.folder / without_image[0]}, "
                f"and none for {len(without_image) - 1} more masks; give a mask the name of its image"
            )

    def lists(self, train_list: str, val_list: str) -> Mapping[str, list[str]]:
        """Ids by list; reports images in none."""
        paths = {name: self._source / f"{name}.txt" for name in (train_list, val_list)}
        if not any(path.is_file() for path in paths.values()):
            _LOGGER.info("%s: has no list, so all %d images are for evaluation", self._source, len(self._images.ids()))
            return {train_list: [], val_list: self._images.ids()}
        if not paths[val_list].is_file():
            raise UserError(f"{paths[val_list]}: no such file; list the images for evaluation there, one per line")
        found = {name: read_list(path, self._images) if path.is_file() else [] for name, path in paths.items()}
        for name, ids in found.items():
            require_files(self._images, ids, image_list=name, suffix="")
        num_unlisted = len(self._images.ids()) - len({id_ for ids in found.values() for id_ in ids})
        if num_unlisted:
            _LOGGER.info("%s: %d images are in no list and are skipped", self._images.folder, num_unlisted)
        both = sorted(set(found[train_list]) & set(found[val_list]))
        if both:
            _LOGGER.warning(
                "%s: %d images are also in the list for training, the first is '%s'; scores on these are too good",
                paths[val_list], len(both), both[0],
            )  # fmt: skip
        return found

    def check(self, ids: list[str], *, image_list: str) -> FolderCounts:
        """Read every image and mask of a list. Raises: UserError as prepare_folder does."""
        num_unlabelled, num_binary, first = 0, 0, None
        is_labelled = False
        with Progress(len(ids), description=f"check list '{image_list}'") as progress:
            for id_ in ids:
                read_image(self._images.path(id_))
                progress.advance()
                if id_ not in self._masks:
                    num_unlabelled += 1
                    continue
                first = first or self._masks.path(id_)
                label = self._label(id_)
                is_labelled = is_labelled or bool(((label != 0) & (label != IGNORE)).any())
                num_binary += self._binary_label is not None and is_binary(read_index_image(self._masks.path(id_)))
        if first is not None and not is_labelled:
            raise UserError(
                f"{self._source}: list '{image_list}': none of its {len(ids) - num_unlabelled} masks has a labelled "
                f"pixel, the first is {first}; category i must have the value i + 1"
            )
        if num_unlabelled:
            _LOGGER.warning(
                "%s: %d of %d images of list '%s' have no mask; all their pixels are ignored, so they give no score",
                self._source, num_unlabelled, len(ids), image_list,
            )  # fmt: skip
        if num_binary:
            meaning = "ignored" if self._binary_label == IGNORE else f"label {self._binary_label}"
            _LOGGER.info(
                "%s: %d masks of list '%s' hold only 0 and 255, which is read as %s",
                self._source, num_binary, image_list, meaning,
            )  # fmt: skip
        return FolderCounts(num_images=len(ids), num_unlabelled=num_unlabelled, num_binary=num_binary)

    def items(self, ids: list[str], names: Mapping[str, str], *, description: str) -> Iterator[VocItem]:
        with Progress(len(ids), description=description) as progress:
            for id_ in ids:
                path, label = self._images.path(id_), self._label(id_)
                upright = stored_and_upright_size(path)[1]
                is_kept = is_stored_upright(path) or label.shape != upright
                image = path if is_kept else read_image(path)
                yield VocItem(id=names[id_], image=image, label=label, objects=np.zeros_like(label))
                progress.advance()

    def _label(self, id_: str) -> np.ndarray:
        """uint8 (H, W) of the size of the image."""
        stored, upright = stored_and_upright_size(self._images.path(id_))
        if id_ not in self._masks:
            return np.full(upright, IGNORE, dtype=np.uint8)
        path = self._masks.path(id_)
        label = read_mask(path, num_categories=self._num_categories, binary_label=self._binary_label)
        if label.shape not in (stored, upright):
            raise UserError(f"{path}: size {label.shape} differs from {self._images.path(id_)}, which has {upright}")
        return label
