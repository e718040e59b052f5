"""data/real -> data/inverted, data/inverted_oracle: latents of real images by DDIM inversion, masks of their labels."""

from __future__ import annotations

from _stage import run_stage

from diffground.data.voc import VocDataset
from diffground.diffusion.generator import Generator
from diffground.grounding.real_images import real_shards
from diffground.reproduction import paths
from diffground.reproduction.config import Params
from diffground.reproduction.metrics import flatten, write_metrics
from diffground.runtime.backend import make_workers
from diffground.runtime.device import pick_dtype, setup
from diffground.tracking import TrackingRun
from diffground.vocabulary import load_vocabulary


def main(params: Params, run: TrackingRun) -> None:
    p, inversion = params.generator, params.inversion
    device = setup(params.runtime)
    vocabulary = load_vocabulary(params.vocabulary.name, unseen=params.vocabulary.unseen, seen=params.vocabulary.seen)
    generator = Generator.load(
        p.checkpoint,
        device=device,
        dtype=pick_dtype(p.dtype, device),
        image_size=p.image_size,
        config_from=p.config_from,
        loras=p.loras,
    )
    sets = {
        "train": (params.data.train_list, inversion.num_train, vocabulary.seen),
        "val": (params.data.val_list, inversion.num_val, (*vocabulary.seen, *vocabulary.unseen)),
    }
    metrics = {}
    with make_workers(params.runtime, device) as workers:
        for name, (image_list, num_images, named) in sets.items():
            summary = real_shards(
                VocDataset(paths.REAL, image_list, num_categories=len(vocabulary.categories)),
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
    write_metrics("invert_real", metrics)
    run.log_results(flatten(metrics, prefix="invert_real"))


if __name__ == "__main__":
    run_stage("invert_real", main)
