"""reports/{metrics,experiments,benchmarks}, data/{synthetic,real}, models/segmenter -> reports/{tables,figures} and
reports/index.html, one file that needs no other."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from _stage import Params, TrackingRun, run_stage

from diffground.data.shards import read_samples
from diffground.report.benchmarks import benchmark_sections
from diffground.report.cards import (
    first_cards,
    generated_by_quality,
    generated_galleries,
    hardest_group,
    segmented_by_iou,
    segmented_galleries,
    typical,
)
from diffground.report.experiments import comparable_experiments
from diffground.report.gallery import draw_gallery
from diffground.report.page import write_page
from diffground.report.pictures import readme_rows, scored_rows, synthetic_rows, truth_title
from diffground.report.tables import TRAINING_TITLES
from diffground.report.write import notes_of, result_tables, write_charts, write_tables
from diffground.reproduction import paths
from diffground.reproduction.metrics import flatten, read_metrics
from diffground.reproduction.scored_images import scored_images
from diffground.runtime.device import setup
from diffground.segmentation.maskformer import MaskFormerSegmenter

PAGE = Path("reports/index.html")


def main(params: Params, run: TrackingRun) -> None:
    device = setup(params.runtime)
    metrics = {path.stem: read_metrics(path.stem) for path in sorted(paths.METRICS.glob("*.json"))}
    for stage in ("evaluate_grounding", "evaluate_zs3"):
        metrics.setdefault(stage, read_metrics(stage))  # missing: an error that names the stage

    experiments = comparable_experiments(params)
    tables = result_tables(metrics, params, experiments)
    write_tables(tables, paths.TABLES)
    synthetic = partial(read_samples, paths.SYNTHETIC)
    write_charts(metrics, params, experiments, paths.FIGURES)
    draw_gallery(paths.FIGURES / "masks.png", synthetic_rows(synthetic(), num_columns=8))
    segmenters = {
        f"segmenter trained on {TRAINING_TITLES[name]}": MaskFormerSegmenter.load(
            paths.SEGMENTERS / name, device=device
        )
        for name in params.segmenter.training_sets
    }
    categories = params.vocabulary.load().categories
    scored, held_out = scored_images(params)
    draw_gallery(paths.FIGURES / "real.png", scored_rows(scored, segmenters, num_columns=8, held_out=held_out))
    named, first = next(iter(segmenters.items()))
    group, truth = hardest_group(synthetic()), truth_title(held_out=held_out)
    generated = generated_by_quality(synthetic, group=group)
    segmented = segmented_by_iou(scored, first)
    rows = readme_rows(typical(generated), typical(segmented), categories, heading=named.capitalize())
    draw_gallery(paths.FIGURES / "readme.png", rows, picture_px=256)
    notes = notes_of(metrics, params)
    write_page(
        PAGE,
        metrics=metrics,
        tables=tables,
        figures=sorted(paths.FIGURES.glob("*.png")),
        params=params,
        experiments=experiments,
        notes={**notes, "segmented": f"Here it is the {named}. {notes.get('segmented', '')}".rstrip()},
        galleries={
            "generated": generated_galleries(generated_by_quality(synthetic)),
            "segmented": segmented_galleries(segmented, categories, truth=truth),
        },
        cards=first_cards(generated, segmented, categories, group=group, truth=truth),
        benchmarks=benchmark_sections(paths.BENCHMARKS),
    )

    # stages that DVC took from its cache logged nothing themselves
    for stage, values in metrics.items():
        run.log_results(flatten(values, prefix=stage))
    for folder in (paths.TABLES, paths.FIGURES):
        run.log_artifact(folder, folder=folder.name)
    run.log_artifact(PAGE)


if __name__ == "__main__":
    run_stage("report", main)
