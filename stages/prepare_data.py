"""-> data/real: real images with masks in PASCAL VOC layout: none, composed (mini world), copied from a devkit or a
plain folder, or COCO's."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from _stage import Params, TrackingRun, run_stage

from diffground.data.folder import prepare_folder
from diffground.data.masks import binary_label_of
from diffground.data.real import prepare_coco, prepare_voc
from diffground.data.stickers.dataset import compose_dataset
from diffground.data.voc import write_empty_voc
from diffground.reproduction import paths


def main(params: Params, run: TrackingRun) -> None:
    p = params.data
    vocabulary = params.vocabulary.load()
    if p.source == "none":
        write_empty_voc(paths.REAL, [p.train_list, p.val_list])
    elif p.source == "stickers":
        counts = compose_dataset(
            paths.REAL,
            categories=vocabulary.categories,
            num_train=p.num_train,
            num_val=p.num_val,
            image_size=p.image_size,
            seed=p.seed,
        )
        run.log_metrics(
            {
                f"prepare_data/{name}/least_shown_category_num_images": min(by_category.values())
                for name, by_category in counts.items()
            }
        )
    elif p.source == "voc":
        nums = prepare_voc(
            Path(p.root),
            paths.REAL,
            train_list=p.train_list,
            val_list=p.val_list,
            label_folder=p.label_folder,
            num_categories=len(vocabulary.categories),
            binary_label=binary_label_of(p.binary_label, vocabulary.categories),
        )
        run.log_metrics({f"prepare_data/{name}/num_images": num for name, num in nums.items()})
    elif p.source == "folder":
        written = prepare_folder(
            Path(p.root),
            paths.REAL,
            train_list=p.train_list,
            val_list=p.val_list,
            num_categories=len(vocabulary.categories),
            binary_label=binary_label_of(p.binary_label, vocabulary.categories),
        )
        for name, count in written.items():
            run.log_metrics({f"prepare_data/{name}/{key}": value for key, value in asdict(count).items()})
    else:
        summaries = prepare_coco(
            Path(p.root),
            paths.REAL,
            train_list=p.train_list,
            val_list=p.val_list,
            num_train=p.num_train,
            num_val=p.num_val,
            seed=p.seed,
            annotations=p.annotations,
            vocabulary=vocabulary,
        )
        for name, summary in summaries.items():
            print(f"prepare_data: list '{name}': {summary}")
            run.log_metrics(
                {
                    f"prepare_data/{name}/num_images": summary.num_images,
                    f"prepare_data/{name}/num_empty": summary.num_empty,
                    f"prepare_data/{name}/num_pairs": len(summary.pairs),
                }
            )


if __name__ == "__main__":
    run_stage("prepare_data", main)
