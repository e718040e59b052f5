"""models/grounding, generated and real images, review -> Protocol I; with the scores of evaluate_baselines."""

from __future__ import annotations

from _stage import Params, TrackingRun, run_stage

from diffground.data.labelled import read_labelled_samples
from diffground.diffusion.load import load_generator
from diffground.evaluation.grounding_method import GroundingMethod
from diffground.evaluation.methods import foreground_method
from diffground.evaluation.protocol1 import MaskMethod, harmonic_of_groups, join_metrics, run_protocol1
from diffground.evaluation.real_images import score_real_images
from diffground.grounding.prediction import Grounder
from diffground.prompts import GROUPS
from diffground.reproduction import paths
from diffground.reproduction.metrics import flatten, read_metrics, write_metrics
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
    grounding: MaskMethod = GroundingMethod(
        grounder=grounder,
        vocabulary=vocabulary,
        image_size=p.image_size,
        mask_threshold=params.grounding.mask_threshold,
        resolve_overlaps=params.grounding.resolve_overlaps,
    )
    with make_workers(params.runtime, device) as workers:
        result = run_protocol1(
            read_labelled_samples(generated=paths.GENERATED["test"], oracle=paths.ORACLE["test"]),
            {"grounding": grounding},
            groups=GROUPS,
            batch_size=p.batch_size,
            review=review_of(paths.TEST_REVIEWS, params.profile),
            workers=workers,
        )
        metrics = join_metrics(read_metrics("evaluate_baselines"), result.metrics())
        if params.inversion.num_val:
            real = score_real_images(
                read_labelled_samples(generated=paths.INVERTED["val"], oracle=paths.INVERTED_ORACLE["val"]),
                {"grounding": grounding, "foreground_only": foreground_method},
                seen=vocabulary.seen,
                unseen=vocabulary.unseen,
                batch_size=p.batch_size,
                workers=workers,
            )
            metrics["real_images"] = real.metrics()
    run.log_results(write_metrics("evaluate_grounding", metrics))
    run.log_model(
        grounding_entry(paths.GROUNDING_MODEL, params),
        metrics=flatten(metrics["grounding"]),
        score=harmonic_of_groups(metrics["grounding"]),
        benchmark=benchmark_of(params, "data", "vocabulary", "prompts", "generator", "detector"),
        contends=True,
    )


if __name__ == "__main__":
    run_stage("evaluate_grounding", main)
