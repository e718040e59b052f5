"""-> data/real: real images with masks in PASCAL VOC layout, composed (mini world) or copied from a devkit."""

from __future__ import annotations

from pathlib import Path

from _stage import run_stage

from diffground import paths
from diffground.config import Params
from diffground.data.stickers.dataset import compose_dataset
from diffground.data.voc import copy_voc
from diffground.tracking import TrackingRun


def main(params: Params, run: TrackingRun) -> None:
    p = params.data
    if p.source == "stickers":
        counts = compose_dataset(
            paths.REAL, num_train=p.num_train, num_val=p.num_val, image_size=p.image_size, seed=p.seed
        )
        run.log_metrics({
            f"prepare_data/{name}/least_shown_category_num_images": min(by_category.values())
            for name, by_category in counts.items()
        })  # fmt: skip
    else:
        nums = copy_voc(Path(p.root), paths.REAL, [p.train_list, p.val_list])
        run.log_metrics({f"prepare_data/{name}/num_images": num for name, num in nums.items()})


if __name__ == "__main__":
    run_stage("prepare_data", main)
