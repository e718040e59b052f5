"""How good label maps to train on are, where the true ones are known: a measurement, nothing is chosen by it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffground.data.labelled import LabelledSample
from diffground.data.palette import IGNORE
from diffground.data.shards import read_shard
from diffground.data.voc import VocDataset
from diffground.evaluation.confusion import ConfusionMatrix
from diffground.evaluation.miou import iou_of_labels
from diffground.evaluation.zs3 import ZeroShotTable, zero_shot_table
from diffground.vocabulary import Vocabulary

_BACKGROUND = "background"


@dataclass(frozen=True)
class PseudoLabelScores:
    """mIoU with the background as a label of its own, over the pixels that have a true and a pseudo label."""

    table: ZeroShotTable
    undecided_frac: float | None
    """Share of the truly labelled pixels that the pseudo labels leave out (255); None without any."""

    def metrics(self) -> dict[str, Any]:
        """Flat but for `per_category`; mIoU in percent."""
        table = asdict(self.table)
        kept = {key: table[key] for key in ("seen", "unseen", "harmonic", "background", "per_category")}
        return {**kept, "undecided_frac": self.undecided_frac}


def score_pseudo_labels(pairs: Iterable[tuple[np.ndarray, np.ndarray]], *, vocabulary: Vocabulary) -> PseudoLabelScores:
    """Count over (pseudo label, true label), uint8 (H, W) each, 0 background, 1..K, 255 none.

    True pixels of categories that are not used are not scored.
    """
    counts = ConfusionMatrix(num_labels=1 + len(vocabulary.categories))
    used = {*vocabulary.seen, *vocabulary.unseen}
    unused = [i + 1 for i, category in enumerate(vocabulary.categories) if category not in used]
    num_labelled = num_undecided = 0
    for pseudo, true in pairs:
        labelled = (true != IGNORE) & ~np.isin(true, unused)
        decided = pseudo != IGNORE
        num_labelled += int(labelled.sum())
        num_undecided += int((labelled & ~decided).sum())
        counts.update(label=np.where(labelled & decided, true, np.uint8(IGNORE)), prediction=pseudo)
    table = iou_of_labels(counts, (_BACKGROUND, *vocabulary.categories))
    return PseudoLabelScores(
        table=zero_shot_table(table, seen=vocabulary.seen, unseen=vocabulary.unseen),
        undecided_frac=num_undecided / num_labelled if num_labelled else None,
    )


def score_label_shards(folder: Path, dataset: VocDataset, *, vocabulary: Vocabulary) -> PseudoLabelScores:
    """Score the shards that pseudo_label_shards wrote of images of `dataset`; there may be none."""
    index = {id_: i for i, id_ in enumerate(dataset.ids)}
    samples = (LabelledSample(sample) for path in sorted(folder.glob("*.tar")) for sample in read_shard(path))
    return score_pseudo_labels(
        ((sample.label(), dataset.label(index[sample.image_id])) for sample in samples), vocabulary=vocabulary
    )
