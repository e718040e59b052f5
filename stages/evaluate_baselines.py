"""Generated images, detector, review -> Protocol I of the methods that train nothing, and of its references."""

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
from diffground.evaluation.methods import MirroredDetector, foreground_method
from diffground.evaluation.protocol1 import run_protocol1
from diffground.prompts import GROUPS
from diffground.reproduction import paths
from diffground.reproduction.metrics import write_metrics
from diffground.reproduction.reviews import review_of
from diffground.runtime.backend import make_workers
from diffground.runtime.device import setup


def main(params: Params, run: TrackingRun) -> None:
    p, t, d = params.generator, params.text2mask, params.detector
    device = setup(params.runtime)
    vocabulary = params.vocabulary.load()
    generator = load_generator(p, device)
    text2mask = Text2Mask(
        generator=generator,
        noise_frac=t.noise_frac,
        word_sizes=t.word_sizes,
        num_noises=t.num_noises,
        power=t.power,
        max_affinity_size=t.max_affinity_size,
    )
    attention: dict[str, AttentionMaps] = {
        "daam": DaamMaps(generator, vocabulary, p.sampling),
        "attention": RefinedMaps(generator, vocabulary, t.max_affinity_size),
        "text2mask": Text2MaskMaps(text2mask, vocabulary, t.seed),
    }
    mirrored = MirroredDetector(
        detector=load_detector(
            backend=d.backend, checkpoint=d.checkpoint, mask_threshold=d.mask_threshold, device=device
        ),
        detector_names=vocabulary.detector_names,
        score_threshold=d.score_threshold,
        batch_size=d.batch_size,
    )
    training = read_labelled_samples(generated=paths.GENERATED["train"], oracle=paths.ORACLE["train"])
    examples = list(islice(training, params.daam.num_calibration))
    with make_workers(params.runtime, device) as workers:
        baselines: dict[str, AttentionMethod] = {}
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
            {"foreground_only": foreground_method, **baselines, "detector_mirrored": mirrored},
            groups=GROUPS,
            batch_size=params.daam.batch_size,
            review=review_of(paths.TEST_REVIEWS, params.profile),
            workers=workers,
        )
    metrics = {
        **result.metrics(),
        "daam_threshold": baselines["daam"].settings[1].threshold,
        "baselines": {name: _settings(method, generator.cross_attention_names) for name, method in baselines.items()},
    }
    run.log_results(write_metrics("evaluate_baselines", metrics))


def _settings(method: AttentionMethod, names: list[str]) -> dict[str, Any]:
    """What a baseline reads, by the number of categories that a prompt names."""
    return {
        str(num): {**asdict(setting), "layers": [names[layer] for layer in setting.layers]}
        for num, setting in method.settings.items()
    }


if __name__ == "__main__":
    run_stage("evaluate_baselines", main)
