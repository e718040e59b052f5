"""The authors' MaskFormer next to ours: the same network, images and settings, trained through the same stages.

    . .venv-detectron2/bin/activate
    python -m benchmarks official_segmenter            # after a reproduction of profile mini, minutes

Stages train_maskformer and evaluate_zs3 run in a scratch folder with each `segmenter.backend`, from a ResNet-18 with
random weights: the backbone of profile mini is none that detectron2 has. With few iterations from such weights the
scores stay low; they show that all of it runs and learns, not how good it gets.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import torch

from benchmarks._stages import run_stage, scratch_folder
from diffground.entry_point import run_entry_point
from diffground.report.tables import Row, Table
from diffground.reproduction import paths
from diffground.segmentation.config import TrainingSet

BACKENDS = ("official", "transformers")
BACKBONE = Path("models/resnet18")
SETTINGS: dict[str, Any] = {
    "backbone": str(BACKBONE),
    "matching": "bipartite",
    "mixed_precision": "none",
    "gradient_accumulation_steps": 1,
    "backbone_lr_factor": 1.0,  # nothing is pretrained
}


def train_and_score(backend: str, *, training_set: str, changes: dict[str, Any]) -> Row:
    """Loss of the first and the last 50 steps, scores on real images, and seconds of the training."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        settings = {**SETTINGS, **changes, "backend": backend, "training_sets": [training_set]}
        scratch_folder(scratch, inputs=[paths.REAL, paths.SYNTHETIC, paths.PSEUDO], changes={"segmenter": settings})
        _write_backbone(scratch / BACKBONE)
        start = time.monotonic()
        run_stage("train_maskformer", scratch)
        duration = round(time.monotonic() - start)
        run_stage("evaluate_zs3", scratch)
        trained = json.loads((scratch / paths.metrics_file("train_maskformer")).read_text(encoding="utf-8"))
        scores = json.loads((scratch / paths.metrics_file("evaluate_zs3")).read_text(encoding="utf-8"))
    losses = trained[training_set]["loss"]["losses"]
    seen, unseen = (scores[training_set][key] for key in ("seen", "unseen"))
    background = scores["with_background"][training_set]["background"]
    return (backend, losses[0], losses[-1], seen, unseen, background, duration)


def _write_backbone(folder: Path) -> None:
    from transformers import ResNetBackbone, ResNetConfig

    torch.manual_seed(0)
    config = ResNetConfig(
        layer_type="basic",
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    ResNetBackbone(config).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--training-set", choices=get_args(TrainingSet), default="synthetic")
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=64, help="px, of the network's input")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    args = parser.parse_args()
    changes = {key: getattr(args, key) for key in ("iterations", "batch_size", "image_size", "learning_rate")}

    def action() -> None:
        rows = [train_and_score(b, training_set=args.training_set, changes=changes) for b in args.backends]
        header = ("backend", "first loss", "last loss", "seen", "unseen", "background", "seconds")
        print(Table(header=header, rows=tuple(rows)).to_markdown())

    sys.exit(run_entry_point(action, resume_with="python -m benchmarks official_segmenter"))


if __name__ == "__main__":
    main()
