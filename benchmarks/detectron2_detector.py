"""How far the masks of a detectron2 detector agree with those of the pipeline's own detector.

    . .venv-detectron2/bin/activate
    python -m benchmarks detectron2_detector pretrain/state/detectron2      # after a reproduction, two minutes

Stage detect runs in a scratch folder with `detector.backend: detectron2` on the generated images of this clone. Its
masks are compared with data/oracle, per image and named category. pretrain/train_detectron2.py trains such a detector.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from benchmarks._stages import ROOT, run_stage, scratch_folder
from diffground.data.labelled import read_labelled_samples
from diffground.entry_point import run_entry_point
from diffground.evaluation.miou import mask_iou
from diffground.report.tables import Row, Table
from diffground.reproduction import paths


@dataclass
class Agreement:
    """Over pairs of an image and a category that its prompt names."""

    num_pairs: int = 0
    num_ours: int = 0
    num_theirs: int = 0
    ious: list[float] = field(default_factory=list)
    """Of the two masks, 0..1, where both detectors found one."""

    def row(self, name: str) -> Row:
        mean = round(100 * fmean(self.ious), 1) if self.ious else None
        return (name, self.num_pairs, self.num_ours, self.num_theirs, len(self.ious), mean)


def compare(generated: Path, *, ours: Path, theirs: Path) -> Agreement:
    """Of two folders of masks of the same images. Raises: UserError where they are not."""
    agreement = Agreement()
    pairs = zip(
        read_labelled_samples(generated=generated, oracle=ours),
        read_labelled_samples(generated=generated, oracle=theirs),
        strict=True,
    )
    for own, other in pairs:
        masks, others = own.masks(), other.masks()
        agreement.num_pairs += len(own.categories)
        agreement.num_ours += len(masks)
        agreement.num_theirs += len(others)
        agreement.ious += [mask_iou(masks[category], others[category]) for category in masks if category in others]
    return agreement


def as_table(agreements: dict[str, Agreement]) -> Table:
    header = ("images", "named objects", "found by ours", "found by detectron2's", "found by both", "mean IoU there, %")
    return Table(header=header, rows=tuple(agreement.row(name) for name, agreement in agreements.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="folder with config.yaml, categories.txt and the weights")
    args = parser.parse_args()

    def action() -> None:
        detector = {"backend": "detectron2", "checkpoint": str(args.checkpoint.resolve())}
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            scratch_folder(scratch, inputs=list(paths.GENERATED.values()), changes={"detector": detector})
            run_stage("detect", scratch)
            agreements = {
                name: compare(ROOT / generated, ours=ROOT / paths.ORACLE[name], theirs=scratch / paths.ORACLE[name])
                for name, generated in paths.GENERATED.items()
            }
        print(as_table(agreements).to_markdown())

    sys.exit(run_entry_point(action, resume_with="python -m benchmarks detectron2_detector"))


if __name__ == "__main__":
    main()
