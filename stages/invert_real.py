"""data/real -> data/inverted, data/inverted_oracle: latents of real images by DDIM inversion, masks of their labels."""

from __future__ import annotations

from _stage import Params, TrackingRun, run_stage

from diffground.data.voc import VocDataset
from diffground.diffusion.load import load_generator
from diffground.grounding.real_images import real_shards
from diffground.reproduction import paths
from diffground.reproduction.metrics import write_metrics
from diffground.runtime.backend import make_workers
from diffground.runtime.device import setup


def main(params: Params, run: TrackingRun) -> None:
    p, inversion = params.generator, params.inversion
    device = setup(params.runtime)
    vocabulary = params.vocabulary.load()
    generator = load_generator(p, device)
    sets = {
        "train": (params.data.train_list, inversion.num_train, vocabulary.seen),
        "val": (params.data.val_list, inversion.num_val, (*vocabulary.seen, *vocabulary.unseen)),
    }
    metrics = {}
    with make_workers(params.runtime, device) as workers:
        for name, (image_list, num_images, named) in sets.items():
            summary = real_shards(
                VocDataset(
                    paths.REAL,
                    image_list,
                    num_categories=len(vocabulary.categories),
                    may_be_empty=num_images == 0,
                ),
                images_dir=paths.INVERTED[name],
                oracle_dir=paths.INVERTED_ORACLE[name],
                num_images=num_images,
                generator=generator,
                vocabulary=vocabulary,
                named=named,
                min_area_frac=inversion.min_area_frac,
                sampling=p.sampling,
                fixed_point_iterations=inversion.fixed_point_iterations,
                batch_size=inversion.batch_size,
                shard_size=p.shard_size,
                description=f"invert {name}",
                workers=workers,
            )
            metrics[name] = summary.metrics()
    run.log_results(write_metrics("invert_real", metrics))


if __name__ == "__main__":
    run_stage("invert_real", main)
