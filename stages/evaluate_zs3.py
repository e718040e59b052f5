"""models/segmenter/*, data/{real,pseudo,synthetic} -> reports/metrics/evaluate_zs3.json: mIoU on real images, or on
held-out synthetic ones where there are none, and mIoU of the label maps of From Text to Mask."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from _stage import Params, TrackingRun, run_stage

from diffground.data.voc import VocDataset
from diffground.evaluation.pseudo_labels import score_label_shards
from diffground.evaluation.zs3 import score_segmenter
from diffground.reproduction import paths
from diffground.reproduction.metrics import flatten, write_metrics
from diffground.reproduction.scored_images import scored_images
from diffground.runtime.device import setup
from diffground.segmentation.maskformer import MaskFormerSegmenter
from diffground.tracking import benchmark_of, segmenter_entry


def main(params: Params, run: TrackingRun) -> None:
    device = setup(params.runtime)
    vocabulary = params.vocabulary.load()
    data, held_out = scored_images(params)
    metrics: dict[str, Any] = {"with_background": {}, "per_category": {}, "absent": {}, "num_images": len(data)}
    if held_out:
        metrics["on"] = "held-out synthetic images"
        print("evaluate_zs3: there are no real images; scores are on held-out synthetic ones, which is no substitute")
    for name in params.segmenter.training_sets:
        segmenter = MaskFormerSegmenter.load(paths.SEGMENTERS / name, device=device)
        scores = score_segmenter(segmenter, data, vocabulary=vocabulary, description=f"evaluate_zs3 {name}")
        table, with_background = asdict(scores.table()), asdict(scores.table_with_background())
        metrics[name] = {key: table[key] for key in ("seen", "unseen", "harmonic")}
        metrics["with_background"][name] = {
            key: with_background[key] for key in ("seen", "unseen", "harmonic", "background")
        }
        metrics["per_category"][name] = table["per_category"]
        metrics["absent"][name] = table["absent"]
    if list(paths.PSEUDO.glob("*.tar")):
        weak = VocDataset(paths.REAL, params.data.train_list, num_categories=len(vocabulary.categories))
        metrics["text2mask_labels"] = score_label_shards(paths.PSEUDO, weak, vocabulary=vocabulary).metrics()
    run.log_results(write_metrics("evaluate_zs3", metrics))
    for name in params.segmenter.training_sets:
        run.log_model(
            segmenter_entry(paths.SEGMENTERS / name, params),
            metrics=flatten(metrics[name]),
            score=metrics[name]["harmonic"],
            benchmark=benchmark_of(params, "data", "vocabulary"),
            # the others are not this method: baselines, and an upper bound that is trained on the unseen categories
            contends=name.startswith("synthetic"),
        )


if __name__ == "__main__":
    run_stage("evaluate_zs3", main)
