"""Images and masks of seen categories, generated, real or both -> models/grounding: the grounding module."""

from __future__ import annotations

from dataclasses import asdict

from _stage import Params, TrackingRun, run_stage

from diffground.diffusion.load import load_generator
from diffground.grounding.card import grounding_card
from diffground.grounding.checkpoint import save_grounding
from diffground.grounding.fit import fit_grounding
from diffground.reproduction import paths
from diffground.reproduction.metrics import write_metrics
from diffground.runtime.device import setup
from diffground.runtime.processes import num_training_processes
from diffground.runtime.rank import is_main_process
from diffground.tracking import grounding_entry
from diffground.training.resume import Unfinished, training_fingerprint


def main(params: Params, run: TrackingRun) -> None:
    p = params.generator
    device = setup(params.runtime)
    vocabulary = params.vocabulary.load()
    generator = load_generator(p, device)
    sources = paths.GROUNDING_SOURCES[params.grounding.training_data]
    unfinished = Unfinished(
        paths.UNFINISHED / "train_grounding",
        fingerprint=training_fingerprint(
            code="diffground.grounding.fit",
            parameters={"generator": p, "grounding": params.grounding, "vocabulary": params.vocabulary},
            data=[p.checkpoint, *(folder for source in sources for folder in source)],
            device=device,
        ),
        every_s=params.runtime.checkpoint_every_s,
    )
    fitted = fit_grounding(
        sources,
        generator=generator,
        vocabulary=vocabulary,
        config=params.grounding,
        sampling=p.sampling,
        feature_batch_size=p.batch_size,
        device=device,
        unfinished=unfinished,
        on_point=lambda iteration, loss: run.log_metrics({"train_grounding/loss": loss}, step=iteration),
    )
    if not is_main_process():
        return
    metrics = {**fitted.metrics(), "loss": asdict(fitted.curve)}
    card = grounding_card(fitted.metrics(), config=params.grounding, checkpoint=p.checkpoint, vocabulary=vocabulary)
    save_grounding(paths.GROUNDING_MODEL, fitted.module, fitted.spec, card=card)
    run.log_model(grounding_entry(paths.GROUNDING_MODEL, params))
    run.log_results(write_metrics("train_grounding", metrics))


def processes(params: Params) -> int:
    p = params.grounding
    return num_training_processes(
        params.runtime, batch_size=p.batch_size, accumulation_steps=p.gradient_accumulation_steps
    )


if __name__ == "__main__":
    run_stage("train_grounding", main, num_processes=processes)
