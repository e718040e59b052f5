"""data/synthetic, data/pseudo, data/real -> models/segmenter/<training set>: one MaskFormer per training set."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from functools import partial
from shutil import rmtree
from typing import Any

from _stage import run_stage

from diffground.data.voc import VocDataset
from diffground.reproduction import paths
from diffground.reproduction.config import Params
from diffground.reproduction.metrics import flatten, write_metrics
from diffground.runtime.device import setup
from diffground.runtime.processes import num_training_processes
from diffground.runtime.rank import is_main_process
from diffground.segmentation.card import segmenter_card
from diffground.segmentation.protocol2 import fit_segmenter, training_source
from diffground.tracking import TrackingRun, segmenter_entry
from diffground.training.resume import Unfinished, training_fingerprint
from diffground.vocabulary import load_vocabulary


def main(params: Params, run: TrackingRun) -> None:
    p = params.segmenter
    device = setup(params.runtime)
    vocabulary = load_vocabulary(params.vocabulary.name, unseen=params.vocabulary.unseen, seen=params.vocabulary.seen)
    real = VocDataset(paths.REAL, params.data.train_list, num_categories=len(vocabulary.categories))
    fingerprint = training_fingerprint(
        code="diffground.segmentation.protocol2",
        parameters={"segmenter": replace(p, training_sets=()), "vocabulary": params.vocabulary, "data": params.data},
        data=[p.backbone, paths.SYNTHETIC, paths.PSEUDO, paths.REAL],
        device=device,
    )
    states = paths.UNFINISHED / "train_maskformer"
    if is_main_process() and states.is_dir():
        for state in states.iterdir():
            if state.name not in p.training_sets:
                rmtree(state)
    metrics: dict[str, dict[str, Any]] = {}
    for name in p.training_sets:
        source = training_source(name, synthetic=paths.SYNTHETIC, pseudo=paths.PSEUDO, real=real, vocabulary=vocabulary)
        start = time.perf_counter()
        unfinished = Unfinished(states / name, fingerprint, params.runtime.checkpoint_every_s)
        segmenter, curve = fit_segmenter(
            source,
            categories=vocabulary.categories,
            config=p,
            device=device,
            description=f"train_maskformer {name}",
            unfinished=unfinished,
            on_point=partial(_log_loss, run, f"train_maskformer/{name}/loss"),
        )
        if not is_main_process():
            continue
        card = segmenter_card(
            name, config=p, num_images=len(source), unseen=vocabulary.unseen, final_loss=curve.losses[-1]
        )
        segmenter.save(paths.SEGMENTERS / name, card=card)
        run.log_model(segmenter_entry(paths.SEGMENTERS / name, params))
        metrics[name] = {"num_images": len(source), "final_loss": curve.losses[-1], "loss": asdict(curve)}
        run.log_metrics({f"train_maskformer/{name}/time_s": time.perf_counter() - start})
    if is_main_process():
        write_metrics("train_maskformer", metrics)
        run.log_results(flatten(metrics, prefix="train_maskformer"))


def processes(params: Params) -> int:
    p = params.segmenter
    return num_training_processes(
        params.runtime, batch_size=p.batch_size, accumulation_steps=p.gradient_accumulation_steps
    )


def _log_loss(run: TrackingRun, key: str, iteration: int, loss: float) -> None:
    run.log_metrics({key: loss}, step=iteration)


if __name__ == "__main__":
    run_stage("train_maskformer", main, num_processes=processes)
