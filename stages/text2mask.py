"""data/real, data/{generated,oracle}/train -> data/pseudo: label maps of real images by their image-level labels."""

from __future__ import annotations

from _stage import Params, TrackingRun, run_stage

from diffground.baselines.dense_crf import DenseCrf
from diffground.baselines.pseudo_labels import LabelRule, calibrate_threshold, plan_weak_images, pseudo_label_shards
from diffground.baselines.text2mask import Text2Mask
from diffground.data.labelled import read_labelled_samples
from diffground.data.voc import VocDataset
from diffground.diffusion.load import load_generator
from diffground.reproduction import paths
from diffground.reproduction.metrics import write_metrics
from diffground.runtime.backend import make_workers
from diffground.runtime.device import setup


def main(params: Params, run: TrackingRun) -> None:
    g, p = params.generator, params.text2mask
    device = setup(params.runtime)
    vocabulary = params.vocabulary.load()
    generator = load_generator(g, device)
    method = Text2Mask(
        generator=generator,
        noise_frac=p.noise_frac,
        word_sizes=p.word_sizes,
        num_noises=p.num_noises,
        power=p.power,
        max_affinity_size=p.max_affinity_size,
    )
    crf = DenseCrf(
        iterations=p.crf_iterations,
        appearance_weight=p.crf_weight,
        position_frac=p.crf_position_frac,
        colour_scale=p.crf_colour_scale,
    )
    real = VocDataset(
        paths.REAL,
        params.data.train_list,
        num_categories=len(vocabulary.categories),
        may_be_empty=p.num_images == 0,
    )
    images = plan_weak_images(real, vocabulary=vocabulary, tokenizer=generator.tokenizer, num_images=p.num_images)
    threshold = p.threshold
    with make_workers(params.runtime, device) as workers:
        if images.images and p.threshold_from == "generated":
            threshold = calibrate_threshold(
                method,
                read_labelled_samples(generated=paths.GENERATED["train"], oracle=paths.ORACLE["train"]),
                vocabulary=vocabulary,
                num_calibration=p.num_calibration,
                seed=p.seed,
                batch_size=p.batch_size,
                workers=workers,
            )
        pseudo_label_shards(
            real,
            images,
            out_dir=paths.PSEUDO,
            method=method,
            rule=LabelRule(threshold=threshold, uncertain_band=p.uncertain_band, crf=crf if p.crf_iterations else None),
            vocabulary=vocabulary,
            seed=p.seed,
            batch_size=p.batch_size,
            shard_size=g.shard_size,
            workers=workers,
        )
    metrics = {
        **images.counts(),
        "threshold": threshold if images.images else None,
    }
    run.log_results(write_metrics("text2mask", metrics))


if __name__ == "__main__":
    run_stage("text2mask", main)
