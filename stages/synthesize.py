"""data/prompts/synthesis.jsonl + models/grounding -> data/synthetic: images with label maps, for any segmenter."""

from __future__ import annotations

from _stage import Params, TrackingRun, run_stage

from diffground.diffusion.load import load_generator
from diffground.grounding.prediction import Grounder
from diffground.grounding.synthesize import synthesize_shards
from diffground.prompts import PromptFile
from diffground.reproduction import paths
from diffground.runtime.backend import make_workers
from diffground.runtime.device import setup
from diffground.runtime.fingerprint import checkpoint_fingerprint


def main(params: Params, run: TrackingRun) -> None:
    p = params.generator
    device = setup(params.runtime)
    vocabulary = params.vocabulary.load()
    generator = load_generator(p, device)
    records = PromptFile(paths.PROMPTS["synthesis"])
    with make_workers(params.runtime, device) as workers:
        num_shards = synthesize_shards(
            records,
            out_dir=paths.SYNTHETIC,
            generator=generator,
            grounder=Grounder.load(paths.GROUNDING_MODEL, generator=generator, device=device),
            grounder_id=checkpoint_fingerprint(paths.GROUNDING_MODEL),
            vocabulary=vocabulary,
            sampling=p.sampling,
            mask_threshold=params.grounding.mask_threshold,
            batch_size=p.batch_size,
            shard_size=p.shard_size,
            redraw_below=params.synthesis.redraw_below,
            max_draws=params.synthesis.max_draws,
            workers=workers,
        )
    run.log_metrics({"synthesize/num_images": len(records), "synthesize/num_shards_written": num_shards})


if __name__ == "__main__":
    run_stage("synthesize", main)
