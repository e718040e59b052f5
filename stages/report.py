"""reports/{metrics,experiments}, data/{synthetic,real}, models/segmenter -> reports/{tables,figures,index.html}."""

from __future__ import annotations

from pathlib import Path

from _stage import run_stage

from diffground.data.shards import read_samples
from diffground.data.voc import VocDataset
from diffground.report.experiments import comparable_experiments
from diffground.report.gallery import draw_gallery
from diffground.report.page import write_page
from diffground.report.pictures import failure_rows, scored_rows, synthetic_rows
from diffground.report.tables import TRAINING_TITLES
from diffground.report.write import notes_of, result_tables, trends_of, write_charts, write_tables
from diffground.reproduction import paths
from diffground.reproduction.config import Params
from diffground.reproduction.metrics import flatten, read_metrics
from diffground.reproduction.reviews import review_of
from diffground.runtime.device import setup
from diffground.segmentation.maskformer import MaskFormerSegmenter
from diffground.segmentation.sources import ShardSource
from diffground.tracking import TrackingRun

PAGE = Path("reports/index.html")


def main(params: Params, run: TrackingRun) -> None:
    device = setup(params.runtime)
    metrics = {path.stem: read_metrics(path.stem) for path in sorted(paths.METRICS.glob("*.json"))}
    for stage in ("evaluate_grounding", "evaluate_zs3"):
        metrics.setdefault(stage, read_metrics(stage))  # missing: an error that names the stage

    experiments = comparable_experiments(params)
    tables = result_tables(metrics, params, experiments)
    write_tables(tables, paths.TABLES)
    write_charts(metrics, params, experiments, paths.FIGURES)
    draw_gallery(paths.FIGURES / "masks.png", synthetic_rows(read_samples(paths.SYNTHETIC), num_columns=8))
    segmenters = {
        f"segmenter trained on {TRAINING_TITLES[name]}": MaskFormerSegmenter.load(
            paths.SEGMENTERS / name, device=device
        )
        for name in params.segmenter.training_sets
    }
    categories = params.vocabulary.load().categories
    real = VocDataset(paths.REAL, params.data.val_list, num_categories=len(categories), may_be_empty=True)
    scored = (
        real
        if len(real)
        else ShardSource(
            paths.SYNTHETIC,
            part="held_out",
            review=review_of(paths.SYNTHETIC_REVIEWS, params.profile),
            categories=categories,
        )
    )
    what = metrics["evaluate_zs3"].get("on", "real images")
    draw_gallery(paths.FIGURES / "real.png", scored_rows(scored, segmenters, num_columns=8, what=what))
    named, first = next(iter(segmenters.items()))
    draw_gallery(paths.FIGURES / "failures.png", failure_rows(scored, first, num_columns=8, what=what))
    notes = notes_of(metrics, params)
    write_page(
        PAGE,
        tables=tables,
        figures=sorted(paths.FIGURES.glob("*.png")),
        params=params,
        experiments=experiments,
        trends=[trend.sentence() for trend in trends_of(metrics, params, experiments)],
        notes={**notes, "failures": f"Here it is the {named}. {notes.get('failures', '')}".rstrip()},
    )

    # stages that DVC took from its cache logged nothing themselves
    for stage, values in metrics.items():
        run.log_results(flatten(values, prefix=stage))
    for folder in (paths.TABLES, paths.FIGURES):
        run.log_artifact(folder, folder=folder.name)
    run.log_artifact(PAGE)


if __name__ == "__main__":
    run_stage("report", main)
