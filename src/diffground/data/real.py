"""The real images of a data set on disk, as lists of data/real: a training list and a validation list."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from diffground.data.coco import CocoSummary, coco_labels, convert_coco
from diffground.data.voc import VocDataset, copy_voc
from diffground.errors import UserError
from diffground.vocabulary import Vocabulary

_VOC_LABELS = "SegmentationClass"


def prepare_voc(
    source: Path, root: Path, *, train_list: str, val_list: str, label_folder: str, num_categories: int
) -> dict[str, int]:
    """Copy two lists of a devkit; number of images by list. Training labels are those of `label_folder`, validation
    labels always those of SegmentationClass, which also win for an image of both lists.

    Raises: UserError as VocDataset does, before anything is copied.
    """
    folders = {train_list: label_folder, val_list: _VOC_LABELS}
    for name, folder in folders.items():
        VocDataset(source, name, num_categories=num_categories, label_folder=folder)
    nums: dict[str, int] = {}
    for name, folder in folders.items():
        nums |= copy_voc(source, root, [name], label_folder=folder)
    return nums


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

    `vocabulary`: whose labels are written. The rest as in convert_coco.
    Raises: UserError as convert_coco does, and for a folder or annotation file of either split that is missing, before
    anything is written.
    """
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


def _check_layout(source: Path, annotations: str) -> None:
    remedy = "run `diffground fetch coco2017` or unpack COCO's archives there"
    if not source.is_dir():
        raise UserError(f"{source}: no such COCO folder; set data.root, or {remedy}")
    for split in ("val2017", "train2017"):
        for path in (source / "annotations" / f"{annotations}_{split}.json", source / split):
            if not path.exists():
                raise UserError(f"{path}: missing, COCO's folder is not complete; {remedy}")
