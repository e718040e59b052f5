"""models/grounding, generated and real images, detector, review -> Protocol I, with its references."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from typing import Any

from _stage import Params, TrackingRun, run_stage

from diffground.baselines.text2mask import Text2Mask
from diffground.data.labelled import read_labelled_samples
from diffground.detection.load import load_detector
from diffground.diffusion.load import load_generator
from diffground.evaluation.attention_methods import (
    AttentionMaps,
    AttentionMethod,
    DaamMaps,
    RefinedMaps,
    Text2MaskMaps,
    calibrate,
)
from diffground.evaluation.methods import GroundingMethod, MirroredDetector, foreground_method
from diffground.evaluation.protocol1 import MaskMethod, harmonic_of_groups, run_protocol1
from diffground.evaluation.real_images import score_real_images
from diffground.grounding.prediction import Grounder
from diffground.prompts import GROUPS
from diffground.reproduction import paths
from diffground.reproduction.metrics import flatten, write_metrics
from diffground.reproduction.reviews import review_of
from diffground.runtime.backend import make_workers
from diffground.runtime.device import setup
from diffground.tracking import benchmark_of, grounding_entry


def main(params: Params, run: TrackingRun) -> None:
    p = params.generator
    device = setup(params.runtime)
    vocabulary = params.vocabulary.load()
    generator = load_generator(p, device)
    grounder = Grounder.load(paths.GROUNDING_MODEL, generator=generator, device=device)
    training = read_labelled_samples(generated=paths.GENERATED["train"], oracle=paths.ORACLE["train"])
    t = params.text2mask
    attention: dict[str, AttentionMaps] = {
        "daam": DaamMaps(generator, vocabulary, p.sampling),
        "attention": RefinedMaps(generator, vocabulary, t.max_affinity_size),
        "text2mask": Text2MaskMaps(
            Text2Mask(
                generator=generator,
                noise_frac=t.noise_frac,
                word_sizes=t.word_sizes,
                num_noises=t.num_noises,
                power=t.power,
                max_affinity_size=t.max_affinity_size,
            ),
            vocabulary,
            t.seed,
        ),
    }
    methods: dict[str, MaskMethod] = {
        "grounding": GroundingMethod(
            grounder=grounder,
            vocabulary=vocabulary,
            image_size=p.image_size,
            mask_threshold=params.grounding.mask_threshold,
            resolve_overlaps=params.grounding.resolve_overlaps,
        ),
        "foreground_only": foreground_method,
    }
    d = params.detector
    mirrored = MirroredDetector(
        detector=load_detector(
            backend=d.backend, checkpoint=d.checkpoint, mask_threshold=d.mask_threshold, device=device
        ),
        detector_names=vocabulary.detector_names,
        score_threshold=d.score_threshold,
        batch_size=d.batch_size,
    )
    real = None
    with make_workers(params.runtime, device) as workers:
        baselines: dict[str, AttentionMethod] = {}
        examples = list(islice(training, params.daam.num_calibration))
        for name, maps in attention.items():
            published, best = calibrate(
                maps,
                examples,
                image_size=p.image_size,
                batch_size=params.daam.batch_size,
                description=f"calibration of {name}",
                workers=workers,
            )
            if published is not None:
                baselines[name] = published
            baselines[f"{name}_best"] = best
        result = run_protocol1(
            read_labelled_samples(generated=paths.GENERATED["test"], oracle=paths.ORACLE["test"]),
            {**methods, **baselines, "detector_mirrored": mirrored},
            groups=GROUPS,
            batch_size=params.daam.batch_size,
            review=review_of(paths.TEST_REVIEWS, params.profile),
            workers=workers,
        )
        if params.inversion.num_val:
            real = score_real_images(
                read_labelled_samples(generated=paths.INVERTED["val"], oracle=paths.INVERTED_ORACLE["val"]),
                methods,  # without the baselines, of which DAAM needs every step of a sampling
                seen=vocabulary.seen,
                unseen=vocabulary.unseen,
                batch_size=params.daam.batch_size,
                workers=workers,
            )
    settings = {name: _settings(method, generator.cross_attention_names) for name, method in baselines.items()}
    metrics: dict[str, Any] = {
        **result.metrics(),
        "daam_threshold": baselines["daam"].settings[1].threshold,
        "baselines": settings,
    }
    if real is not None:
        metrics["real_images"] = real.metrics()
    run.log_results(write_metrics("evaluate_grounding", metrics))
    run.log_model(
        grounding_entry(paths.GROUNDING_MODEL, params),
        metrics=flatten(metrics["grounding"]),
        score=harmonic_of_groups(metrics["grounding"]),
        benchmark=benchmark_of(params, "data", "vocabulary", "prompts", "generator", "detector"),
        contends=True,
    )


def _settings(method: AttentionMethod, names: list[str]) -> dict[str, Any]:
    """What a baseline reads, by the number of categories that a prompt names."""
    return {
        str(num): {**asdict(setting), "layers": [names[layer] for layer in setting.layers]}
        for num, setting in method.settings.items()
    }


if __name__ == "__main__":
    run_stage("evaluate_grounding", main)
