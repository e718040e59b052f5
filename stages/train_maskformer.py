"""data/synthetic, data/pseudo, data/real -> models/segmenter/<training set>: one MaskFormer per training set."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from shutil import rmtree
from typing import Any

from _stage import Params, TrackingRun, run_stage

from diffground.data.review import REJECTED
from diffground.data.voc import VocDataset
from diffground.reproduction import paths
from diffground.reproduction.metrics import write_metrics
from diffground.reproduction.reviews import review_of
from diffground.runtime.device import setup
from diffground.runtime.processes import num_training_processes
from diffground.runtime.rank import is_main_process, is_one_of_several
from diffground.runtime.workers import Workers
from diffground.segmentation.protocol2 import SegmenterTraining, needs_real_images
from diffground.tracking import segmenter_entry
from diffground.training.resume import training_fingerprint


def main(params: Params, run: TrackingRun) -> None:
    p = params.segmenter
    device = setup(params.runtime)
    vocabulary = params.vocabulary.load()
    num_categories = len(vocabulary.categories)
    real = VocDataset(
        paths.REAL,
        params.data.train_list,
        num_categories=num_categories,
        may_be_empty=not needs_real_images(p.training_sets),
    )
    scored = VocDataset(paths.REAL, params.data.val_list, num_categories=num_categories, may_be_empty=True)
    review = review_of(paths.SYNTHETIC_REVIEWS, params.profile)
    num_rejected = sum(entry.verdict == REJECTED for entry in review.entries.values())
    if num_rejected and is_main_process():
        print(f"train_maskformer: {num_rejected} synthetic samples are left out, rejected in {review.path}")
    fingerprint = training_fingerprint(
        code="diffground.segmentation.protocol2",
        parameters={"segmenter": replace(p, training_sets=()), "vocabulary": params.vocabulary, "data": params.data},
        data=[p.backbone, paths.SYNTHETIC, paths.PSEUDO, paths.REAL, *([review.path] if review.entries else [])],
        device=device,
    )
    states = paths.UNFINISHED / "train_maskformer"
    if is_main_process() and states.is_dir():
        for state in states.iterdir():
            if state.name not in p.training_sets:
                rmtree(state)
    training = SegmenterTraining(
        vocabulary=vocabulary,
        config=p,
        synthetic=paths.SYNTHETIC,
        pseudo=paths.PSEUDO,
        real=real,
        hold_out=not len(scored),
        device=device,
        models=paths.SEGMENTERS,
        states=states,
        fingerprint=fingerprint,
        every_s=params.runtime.checkpoint_every_s,
        review=review,
    )
    at_once = _num_at_once(params, on_cpu=device.type == "cpu")
    if at_once == 1:
        training = replace(training, on_point=partial(_log_loss, run))
    metrics: dict[str, dict[str, Any]] = {}
    with Workers(num_workers=at_once, num_threads=params.runtime.num_threads) as workers:
        trained = workers.map(training, p.training_sets)
        for name, (num_images, curve) in zip(p.training_sets, trained, strict=True):
            if not is_main_process():
                continue
            if at_once > 1:
                for iteration, loss in zip(curve.iterations, curve.losses, strict=True):
                    _log_loss(run, name, iteration, loss)
            run.log_model(segmenter_entry(paths.SEGMENTERS / name, params))
            metrics[name] = {"num_images": num_images, "final_loss": curve.losses[-1], "loss": asdict(curve)}
    if is_main_process():
        run.log_results(write_metrics("train_maskformer", metrics))


def processes(params: Params) -> int:
    p = params.segmenter
    if p.backend == "official":
        if (num := params.runtime.num_training_processes) > 1:
            print(
                f"train_maskformer: backend 'official' trains in one process, not runtime.num_training_processes={num}"
            )
        return 1
    return num_training_processes(
        params.runtime, batch_size=p.batch_size, accumulation_steps=p.gradient_accumulation_steps
    )


def _num_at_once(params: Params, *, on_cpu: bool) -> int:
    """On a CPU all segmenters at once: two trainings of one thread each are a third faster than one of two threads."""
    one_by_one = not on_cpu or params.runtime.num_workers == 1 or is_one_of_several()
    return 1 if one_by_one else len(params.segmenter.training_sets)


def _log_loss(run: TrackingRun, name: str, iteration: int, loss: float) -> None:
    run.log_metrics({f"train_maskformer/{name}/loss": loss}, step=iteration)


if __name__ == "__main__":
    run_stage("train_maskformer", main, num_processes=processes)
