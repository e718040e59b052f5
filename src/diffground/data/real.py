"""The real images of a data set on disk, as lists of data/real: a training list and a validation list."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from diffground.data.coco import CocoSummary, coco_labels, convert_coco
from diffground.data.coco_export import ExportAnnotations, convert_export, export_labels
from diffground.data.images import is_stored_upright, stored_and_upright_size
from diffground.data.masks import is_binary, read_index_image
from diffground.data.palette import IGNORE
from diffground.data.voc import VocDataset, copy_voc, list_path, write_voc
from diffground.errors import UserError
from diffground.runtime.progress import Progress
from diffground.vocabulary import Vocabulary

_LOGGER = logging.getLogger(__name__)
_VOC_LABELS = "SegmentationClass"


def prepare_voc(
    source: Path,
    root: Path,
    *,
    train_list: str,
    val_list: str,
    label_folder: str,
    num_categories: int,
    binary_label: int | None = None,
) -> dict[str, int]:
    """Copy two lists of a devkit; number of images by list. Training labels are those of `label_folder`, validation
    labels always those of SegmentationClass, which also win for an image of both lists.

    `binary_label`: what 255 means in a mask that holds only 0 and 255, see read_mask.
    Raises: UserError as VocDataset does, for a mask that read_mask refuses, and for a list without a labelled pixel,
    before anything is copied.
    """
    folders = {train_list: label_folder, val_list: _VOC_LABELS}
    num_binary = 0
    for name, folder in folders.items():
        dataset = VocDataset(
            source, name, num_categories=num_categories, label_folder=folder, binary_label=binary_label
        )
        num_binary += _check_labels(dataset, list_path(source, name), binary_label)
    if not num_binary and binary_label is not None:
        _LOGGER.warning("data.binary_label: no mask holds only 0 and 255, so it is not used")
    nums: dict[str, int] = {}
    for name, folder in folders.items():
        nums |= copy_voc(
            source, root, [name], label_folder=folder, num_categories=num_categories, binary_label=binary_label
        )
    return nums


def _check_labels(dataset: VocDataset, image_list: Path, binary_label: int | None) -> int:
    """Read all labels once; log what the user may not expect. Returns the number of masks of only 0 and 255."""
    num_labelled, binary, turned = 0, list[Path](), list[Path]()
    with Progress(len(dataset), description=f"check the masks of {image_list.stem}") as progress:
        for i in range(len(dataset)):
            image, mask = dataset.files(i)
            label = dataset.label(i)
            num_labelled += bool(((label != 0) & (label != IGNORE)).any())
            if binary_label is not None and not set(np.unique(label)) - {0, IGNORE, binary_label}:
                binary += [mask] if is_binary(read_index_image(mask)) else []
            if not is_stored_upright(image) and stored_and_upright_size(image)[0] == label.shape:
                turned.append(image)
            progress.advance()
    if not num_labelled:
        raise UserError(
            f"{image_list}: none of its {len(dataset)} masks has a labelled pixel, the first is {dataset.files(0)[1]}; "
            f"category i must have the value i + 1"
        )
    if binary:
        meaning = "ignored" if binary_label == IGNORE else f"label {binary_label}"
        _LOGGER.info(
            "%s: %d of %d masks hold only 0 and 255, which is read as %s, the first is %s",
            image_list, len(binary), len(dataset), meaning, binary[0],
        )  # fmt: skip
    if turned:
        _LOGGER.warning(
            "%s: %d images have an EXIF orientation, but their masks have the size of the stored pixels, so they are "
            "not turned; the first is %s", image_list, len(turned), turned[0],
        )  # fmt: skip
    return len(binary)


def prepare_coco(
    source: Path,
    root: Path,
    *,
    train_list: str,
    val_list: str,
    num_train: int,
    num_val: int,
    seed: int,
    annotations: str,
    vocabulary: Vocabulary,
) -> Mapping[str, CocoSummary]:
    """Convert both splits of COCO 2017; what was written, by list. 0 images: all of the split.

    `vocabulary`: whose labels are written. `annotations`: as in convert_coco, or the path of a JSON file of instances,
    in `source` or from here: its images are the validation list, and the training list is empty. Where the path holds
    '{split}', there are two files, with 'train' and 'val' in its place.
    Raises: UserError as convert_coco and convert_export do, and for a folder or annotation file of either split that is
    missing, before anything is written.
    """
    if annotations.endswith(".json"):
        nums = {"val": (val_list, num_val), "train": (train_list, num_train)}
        return _prepare_export(source, root, nums, seed=seed, annotations=annotations, vocabulary=vocabulary)
    _check_layout(source, annotations)
    labels = coco_labels(vocabulary)
    summaries = {}
    # the small split first: an error in the folder is found within seconds
    for split, name, num in (("val", val_list, num_val), ("train", train_list, num_train)):
        summaries[name] = convert_coco(
            source,
            root,
            split=split,
            image_list=name,
            labels=labels,
            num_images=num or None,
            seed=seed,
            annotations=annotations,
        )
    return summaries


def _prepare_export(
    source: Path,
    root: Path,
    lists: Mapping[str, tuple[str, int]],
    *,
    seed: int,
    annotations: str,
    vocabulary: Vocabulary,
) -> Mapping[str, CocoSummary]:
    """`lists`: split -> name of its list, and number of images."""
    if not source.is_dir():
        raise UserError(f"{source}: no such folder; set data.root to the folder of the images that {annotations} names")
    splits = list(lists) if "{split}" in annotations else ["val"]
    readers = {}
    for split in splits:
        named = annotations.replace("{split}", split)
        path = source / named if (source / named).is_file() else Path(named)
        readers[split] = ExportAnnotations(path, export_labels(vocabulary), source)
    summaries = {}
    for split, reader in readers.items():
        name, num = lists[split]
        summaries[name] = convert_export(reader, root, image_list=name, num_images=num or None, seed=seed)
    if "train" not in splits:
        name, num = lists["train"]
        _LOGGER.info("%s: all images are for evaluation; list '%s' is empty", annotations, name)
        if num:
            _LOGGER.warning("data.num_train is not used, as %s has no training images", annotations)
        write_voc(root, name, ())
        summaries[name] = CocoSummary(num_images=0, num_empty=0, pairs={})
    return summaries


def _check_layout(source: Path, annotations: str) -> None:
    remedy = "run `diffground fetch coco2017` or unpack COCO's archives there"
    if not source.is_dir():
        raise UserError(f"{source}: no such COCO folder; set data.root, or {remedy}")
    for split in ("val2017", "train2017"):
        for path in (source / "annotations" / f"{annotations}_{split}.json", source / split):
            if not path.exists():
                raise UserError(f"{path}: missing, COCO's folder is not complete; {remedy}")
