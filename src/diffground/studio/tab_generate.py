"""Tab Generate: a prompt in, images with a mask for each word out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from diffground.errors import UserError
from diffground.grounded_output import GroundedSample
from diffground.interface.ground_files import ground_files, ground_settings
from diffground.interface.results import versions
from diffground.interface.samples import Samples
from diffground.interface.words import token_limit
from diffground.studio.events import at_once
from diffground.studio.found import Files, Found
from diffground.studio.models import Models
from diffground.studio.viewer import build_start, build_viewer, results, run_model
from diffground.studio.words import check_request, offered_words, typed_words

MAX_IMAGES = 8
_MAX_STEPS, _MAX_GUIDANCE, _LARGEST_SEED = 200, 30.0, 2**53 - 1
"""The page's numbers are JavaScript's: larger seeds are not exact."""
_PROMPT = "a photograph of a dog and a cat"
_FOLDER = Path("grounded")
"""In the ZIP."""


def build_generate(models: Models) -> None:
    """The tab's components and events, in the present gr.Tab."""
    params = models.params
    sampling, phrases = params.generator.sampling, params.vocabulary.load().phrases
    offered, chosen = offered_words(_PROMPT, phrases)
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            prompt = gr.Textbox(_PROMPT, label="Prompt", lines=2, max_lines=4, elem_id="generate-prompt")
            words = gr.CheckboxGroup(offered, value=chosen, label="Words of the prompt", elem_id="generate-words")
            other = gr.Textbox(
                "", label="Other words", placeholder="of the prompt, with commas", elem_id="generate-other", max_lines=1
            )
            with gr.Row():
                seed = gr.Number(0, label="Seed", precision=0, elem_id="generate-seed", min_width=80)
                number = gr.Number(1, label="Images", precision=0, elem_id="generate-number", min_width=80)
                steps = gr.Number(
                    sampling.num_steps, label="Steps", precision=0, elem_id="generate-steps", min_width=80
                )
                guidance = gr.Number(
                    sampling.guidance_scale, label="Guidance", elem_id="generate-guidance", min_width=80
                )
            buttons = build_start("generate", "Generate")
        with gr.Column(scale=3, min_width=360):
            viewer = build_viewer(
                "generate",
                empty="Write a prompt, choose words of it, and press Generate.",
                threshold=params.grounding.mask_threshold,
            )

    # what is chosen is kept with its prompt: Generate may be pressed before new words are offered
    kept = gr.State((_PROMPT, chosen))

    def offer(text: str) -> Any:
        all_words, known = offered_words(text, phrases)
        return gr.CheckboxGroup(choices=all_words, value=known), (text, known)

    at_once(prompt.change, offer, prompt, [words, kept], trigger_mode="always_last")
    at_once(words.input, lambda *chosen: chosen, [prompt, words], kept, trigger_mode="always_last")
    inputs = [prompt, kept, other, seed, number, steps, guidance, viewer.threshold, viewer.opacity]
    run_model(buttons, prompt, _handler(models), inputs, viewer)


def _handler(models: Models) -> Callable[..., Iterator[Any]]:
    phrases = models.params.vocabulary.load().phrases

    def generate(
        prompt: str,
        kept: tuple[str, list[str]],
        other: str,
        seed: float,
        number: float,
        steps: float,
        guidance: float,
        threshold: float,
        opacity: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - this is how Gradio passes it
    ) -> Iterator[Any]:
        chosen = kept[1] if kept[0] == prompt else offered_words(prompt, phrases)[1]
        asked = tuple(dict.fromkeys([*chosen, *typed_words(other)]))
        num = _whole("Images", number, at_least=1, at_most=MAX_IMAGES)
        first = _whole("Seed", seed, at_least=0, at_most=_LARGEST_SEED - MAX_IMAGES)
        num_steps = _whole("Steps", steps, at_least=1, at_most=_MAX_STEPS)
        if guidance is None or not 0 <= guidance <= _MAX_GUIDANCE:
            raise UserError(f"Guidance must be 0 to {_MAX_GUIDANCE:g}, got {guidance}")
        check_request(prompt, asked, token_limit=token_limit(models.params.generator.checkpoint))
        progress(0.0, desc="loading the model")
        sampling = models.sampling(num_steps=num_steps, guidance_scale=float(guidance))
        found: list[Found] = []
        for i in range(num):
            num_passes = 0

            def on_pass(i: int = i) -> None:
                nonlocal num_passes
                num_passes += 1
                done = min(num_passes, num_steps)
                progress((i + done / num_steps) / num, desc=f"image {i + 1} of {num}, step {done} of {num_steps}")

            sample = models.generate(
                prompt, asked, seed=first + i, sampling=sampling, threshold=threshold, on_pass=on_pass
            )

            def files(masks: np.ndarray, at: float, sample: GroundedSample = sample) -> Files:
                settings = ground_settings(models.params, grounding=models.grounding, threshold=at, sampling=sampling)
                return _files(sample, masks, settings)

            found.append(Found(f"Seed {first + i}", np.asarray(sample.image), sample.words, sample.probs, False, files))
            yield results(found, threshold=threshold, opacity=opacity)

    return generate


def _files(sample: GroundedSample, masks: np.ndarray, settings: dict[str, Any]) -> Files:
    """The files that `diffground ground` writes for this sample, below its folder."""
    seed = int(sample.seed or 0)
    place = Samples([sample.prompt], [sample.words], seeds=range(seed, seed + 1), out=_FOLDER, settings=settings)
    contents, _ = ground_files(
        np.asarray(sample.image),
        sample.words,
        masks,
        sample.probs,
        prompt=sample.prompt,
        seed=seed,
        settings=place.settings_of(0, seed),
        versions=versions(),
    )
    return {(place.folder(0, seed) / name).as_posix(): content for name, content in contents.items()}


def _whole(name: str, value: float | None, *, at_least: int, at_most: int) -> int:
    if value is None or value != int(value) or not at_least <= value <= at_most:
        raise UserError(f"{name} must be a whole number of {at_least} to {at_most}, got {value}")
    return int(value)
