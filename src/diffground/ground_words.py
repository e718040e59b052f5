"""`diffground ground`: one image of any prompt and a mask for each of its words, some of them words of one's own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from diffground.atomic import atomic_file
from diffground.baselines.daam import daam_maps
from diffground.data.overlay import draw_masks
from diffground.data.shards import encode_mask, encode_png
from diffground.diffusion.checkpoint import load_pipeline
from diffground.diffusion.generator import Generator, Samples
from diffground.diffusion.textual_inversion import add_textual_inversion
from diffground.errors import UserError
from diffground.grounding.prediction import Grounder, resolve_overlaps
from diffground.prompts import token_spans
from diffground.reproduction.config import GeneratorConfig, Params
from diffground.reproduction.metrics import read_metrics
from diffground.reproduction.paths import metrics_file
from diffground.runtime.device import pick_dtype, setup


@dataclass(frozen=True)
class PersonalWord:
    """An embedding learned by textual inversion that becomes a word of the generator."""

    file: Path
    """Safetensors, see add_textual_inversion."""
    token: str | None
    """How it is written in the prompt; None: as the file says."""

    @classmethod
    def parse(cls, text: str) -> PersonalWord:
        """'FILE' or 'WORD=FILE'; a file whose own name has an '=' is taken as one if it exists."""
        token, _, file = text.partition("=")
        if not token or not file or Path(text).exists():
            return cls(Path(text), None)
        return cls(Path(file), token)


def ground_words(
    prompt: str,
    words: Sequence[str],
    *,
    personal_words: Sequence[PersonalWord],
    seed: int,
    grounding: Path | None,
    threshold: float | None,
    out: Path,
    params: Params,
) -> list[Path]:
    """Sample one image and write `out` (the image beside its masks), and next to it the image and a mask a word.

    personal_words: of several vectors, one is written in `prompt` and `words` as its token alone.
    grounding: model folder, as stage train_grounding or `diffground import-released` writes it; None: DAAM's heat maps.
    threshold: score in 0..1 from which a pixel belongs to its likeliest word; None: that of params.yaml, for DAAM the
    one that stage evaluate_grounding chose.
    `out` "cow.png" gives cow.png, cow.image.png and cow.<word>.png for each word. Returns the files written.
    Raises: UserError for a word that the prompt does not hold, a personal word that cannot be added, a missing
    generator, grounding module or DAAM threshold.
    """
    if out.suffix.lower() != ".png":
        raise UserError(f"--out must end in .png, got '{out}'")
    repeated = sorted({word for word in words if list(words).count(word) > 1})
    if repeated:
        raise UserError(f"--category names '{repeated[0]}' twice; name it once")
    if threshold is None:
        threshold = params.grounding.mask_threshold if grounding else _calibrated_daam_threshold()
    elif not 0 < threshold <= 1:
        raise UserError(f"--threshold must be above 0 and at most 1, got {threshold:g}")
    p = params.generator
    device = setup(params.runtime)
    generator, phrases = load_generator(p, personal_words, device=device)
    full_prompt, full_words = spell_out(prompt, phrases), [spell_out(word, phrases) for word in words]
    # asked for too, so that "dog" is not the one in "<my-dog>"
    around = [phrase for phrase in phrases.values() if any(w in phrase and w != phrase for w in full_words)]
    queries = list(dict.fromkeys([*full_words, *around]))
    _check_words(generator, full_prompt, queries, words=words, personal=phrases)
    grounder = Grounder.load(grounding, generator=generator, device=device) if grounding else None
    samples = generator.sample(
        [full_prompt], [seed], num_steps=p.num_steps, guidance_scale=p.guidance_scale, tapped_step=p.tapped_step
    )
    if grounder is None:
        scores = daam_maps(
            generator, [full_prompt], [seed], [queries], num_steps=p.num_steps, guidance_scale=p.guidance_scale
        )[0]
    else:
        scores = _probs(grounder, samples, prompt=full_prompt, words=queries, image_size=p.image_size)
    scores = scores[: len(words)]  # (Q, H, W)
    masks = resolve_overlaps(scores, mask_threshold=threshold)
    contents = {out.with_name(f"{out.stem}.{_in_file_name(w)}.png"): encode_mask(masks[i]) for i, w in enumerate(words)}
    contents[out.with_suffix(".image.png")] = encode_png(samples.images[0])
    contents[out] = encode_png(draw_masks(samples.images[0], masks))
    for path, content in contents.items():
        with atomic_file(path) as partial:
            partial.write_bytes(content)
    # DAAM's heat maps all have the highest value 1
    highest = [f", highest probability {score.max():.2f}" if grounding else "" for score in scores]
    for i, word in enumerate(words):
        print(f"{word}: {masks[i].mean():.1%} of the image{highest[i]}")
    print(f"{out}: image and masks")
    return list(contents)


def load_generator(
    config: GeneratorConfig, personal_words: Sequence[PersonalWord], *, device: torch.device
) -> tuple[Generator, dict[str, str]]:
    """The generator with these words added, and what each is for it: token -> phrase, a token a vector.

    Raises: UserError as load_pipeline and add_textual_inversion do, and for a generator with two text encoders.
    """
    pipeline = load_pipeline(config.checkpoint, dtype=pick_dtype(config.dtype, device))
    if personal_words and getattr(pipeline, "text_encoder_2", None) is not None:
        raise UserError(
            f"--word: generator.checkpoint '{config.checkpoint}' has two text encoders, must have one; take a Stable "
            "Diffusion 1.x or 2.x pipeline"
        )
    phrases = {}
    for word in personal_words:
        try:
            phrase = add_textual_inversion(pipeline, word.file, token=word.token)
        except OSError as error:
            raise UserError(
                f"{word.file}: cannot be read ({error.strerror or error}); give a safetensors file"
            ) from None
        phrases[phrase.split()[0]] = phrase
    return Generator(pipeline.to(device), image_size=config.image_size, generator_id=config.checkpoint), phrases


def spell_out(text: str, phrases: Mapping[str, str]) -> str:
    """`text` with each token written as its phrase: "a <cat>" -> "a <cat> <cat>_1" where it has two vectors.

    What is spelt out already stays as it is.
    """
    for token, phrase in phrases.items():
        if phrase not in text:
            text = phrase.join(re.split(rf"(?<!\w){re.escape(token)}(?!\w)", text))
    return text


def _check_words(
    generator: Generator, prompt: str, queries: Sequence[str], *, words: Sequence[str], personal: Mapping[str, str]
) -> None:
    """`queries` begins with `words`, spelt out. Raises: UserError for a word that is not in the prompt."""
    for token, phrase in personal.items():
        if not token_spans(generator.tokenizer, prompt, [phrase])[0]:
            raise UserError(
                f"the prompt '{prompt}' does not contain '{token}', the word of a --word file; write it there, or give "
                "it another name with --word NAME=FILE"
            )
    for word, positions in zip(words, token_spans(generator.tokenizer, prompt, queries), strict=False):
        if not positions:
            raise UserError(f"the prompt '{prompt}' does not contain the words '{word}'; name them as they stand there")


def _probs(grounder: Grounder, samples: Samples, *, prompt: str, words: Sequence[str], image_size: int) -> np.ndarray:
    """float32 (Q, H, W)."""
    probs = grounder.probs(
        latents=samples.latents, prompts=[prompt], words=[words], timestep=samples.timestep, image_size=image_size
    )
    return probs[0].numpy()


def _calibrated_daam_threshold() -> float:
    path = metrics_file("evaluate_grounding")
    threshold = read_metrics("evaluate_grounding").get("daam_threshold") if path.is_file() else None
    if not isinstance(threshold, float):
        raise UserError(
            f"{path}: no daam_threshold there; give --threshold, or run `dvc repro evaluate_grounding`, which fits it"
        )
    return threshold


def _in_file_name(word: str) -> str:
    return re.sub(r"[\s/\\]", "_", word)
