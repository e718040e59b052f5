"""Tab Segment: pictures in, masks of words or of a segmenter's categories out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from diffground import __version__
from diffground.errors import UserError
from diffground.interface.segment_files import ENDINGS, segment_files
from diffground.interface.words import token_limit
from diffground.runtime.fingerprint import checkpoint_fingerprint, generator_fingerprint
from diffground.studio.events import at_once
from diffground.studio.found import Files, Found
from diffground.studio.models import Models
from diffground.studio.uploads import MAX_BYTES, MAX_FILES, MAX_PIXELS, Upload, read_upload
from diffground.studio.viewer import build_start, build_viewer, results, run_model
from diffground.studio.words import check_request, typed_words
from diffground.vocabulary import photograph_of

_BY_WORDS, _BY_SEGMENTER = "Words, by the grounding module", "Categories of the trained segmenter"
_SUFFIXES = [".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".png", ".ppm", ".tif", ".tiff", ".webp"]


def build_segment(models: Models) -> None:
    """The tab's components and events, in the present gr.Tab."""
    limits = f"at most {MAX_FILES}, each up to {MAX_BYTES // 2**20} MiB and {MAX_PIXELS // 10**6} megapixels"
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            files = gr.File(
                label=f"Pictures ({limits})",
                file_count="multiple",
                file_types=_SUFFIXES,
                elem_id="segment-files",
                height=150,
            )
            method = gr.Radio([_BY_WORDS, _BY_SEGMENTER], value=_BY_WORDS, label="Find", elem_id="segment-method")
            words = gr.Textbox("", label="Words", placeholder="dog, unicorn", elem_id="segment-words", max_lines=1)
            caption = gr.Textbox(
                "",
                label="Caption (optional)",
                placeholder="what the pictures show, with the words in it",
                elem_id="segment-caption",
                max_lines=2,
            )
            buttons = build_start("segment", "Segment")
        with gr.Column(scale=3, min_width=360):
            viewer = build_viewer(
                "segment",
                empty="Drop pictures on the left, write the words to find, and press Segment.",
                threshold=models.params.grounding.mask_threshold,
            )

    def choose(chosen: str) -> Any:
        by_words = chosen == _BY_WORDS
        return gr.Textbox(visible=by_words), gr.Textbox(visible=by_words), gr.Slider(interactive=by_words)

    at_once(method.change, choose, method, [words, caption, viewer.threshold])
    inputs = [files, method, words, caption, viewer.threshold, viewer.opacity]
    run_model(buttons, words, _handler(models), inputs, viewer)


def _handler(models: Models) -> Callable[..., Iterator[Any]]:
    def segment(
        files: list[str] | None,
        method: str,
        words: str,
        caption: str,
        threshold: float,
        opacity: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - this is how Gradio passes it
    ) -> Iterator[Any]:
        if not files:
            raise UserError("there is no picture; drop one or more into the field on the left")
        if len(files) > MAX_FILES:
            raise UserError(
                f"at most {MAX_FILES} pictures at a time, got {len(files)}; `diffground segment` takes folders"
            )
        asked, prompt = typed_words(words), caption.strip() or None
        if method == _BY_WORDS:
            if not asked:
                raise UserError("write the words to find, with commas, e.g. dog, unicorn")
            limit = token_limit(models.params.generator.checkpoint)
            check_request(prompt or photograph_of(*asked), asked, token_limit=limit)
        # one that cannot be read is reported before the others take their time; read again below, one at a time
        for path in files:
            read_upload(Path(path), max_side=models.max_side)
        found: list[Found] = []
        for i, path in enumerate(files):
            upload = read_upload(Path(path), max_side=models.max_side)
            desc = f"picture {i + 1} of {len(files)}"
            progress((i, len(files)), desc=desc)
            if method == _BY_WORDS:
                on_pass = partial(progress, (i, len(files)), desc=desc)
                found.append(_by_words(models, upload, asked, prompt, threshold, on_pass))
            else:
                found.append(_by_segmenter(models, upload))
            yield results(found, threshold=threshold, opacity=opacity)

    return segment


def _by_words(
    models: Models,
    upload: Upload,
    words: list[str],
    prompt: str | None,
    threshold: float,
    on_pass: Callable[[], None],
) -> Found:
    sample = models.find(upload.pixels, words, prompt=prompt, threshold=threshold, on_pass=on_pass)
    g = models.params.generator

    def files(masks: np.ndarray, at: float) -> Files:
        settings = {
            "diffground": __version__,
            "method": "inversion and grounding module",
            "words": words,
            "prompt": sample.prompt,
            "mask_threshold": at,
            "generator": generator_fingerprint(g.checkpoint, config_from=g.config_from, loras=g.loras),
            "grounding": checkpoint_fingerprint(models.grounding),
            "image_size": g.image_size,
            "dtype": g.dtype,
        }
        return _files(upload, words, masks, sample.probs, settings)

    return Found(_title(upload), upload.pixels, sample.words, sample.probs, False, files)


def _by_segmenter(models: Models, upload: Upload) -> Found:
    result = models.segment(upload.pixels)
    labels = [label for label in np.unique(result.labels).tolist() if label]
    words = [result.categories[label - 1] for label in labels]
    height, width = upload.pixels.shape[:2]
    masks = np.stack([result.labels == label for label in labels]) if labels else np.zeros((0, height, width), bool)
    scores = result.scores[labels]

    def files(shown: np.ndarray, _: float) -> Files:
        settings = {
            "diffground": __version__,
            "method": "segmenter",
            "words": words,
            "segmenter": checkpoint_fingerprint(models.segmenter),
        }
        return _files(upload, words, shown, scores, settings)

    return Found(_title(upload), upload.pixels, tuple(words), masks, True, files)


def _files(upload: Upload, words: list[str], masks: np.ndarray, scores: np.ndarray, settings: dict[str, Any]) -> Files:
    """As `diffground segment` writes them; where pictures share a name, each has a folder of its content's digest."""
    settings = {**settings, "image_sha256": upload.digest, **({"note": upload.note} if upload.note else {})}
    contents, _ = segment_files(upload.pixels, words, masks, scores, image=upload.name, settings=settings)
    stem = Path(upload.name).stem
    folder = f"segmented/{stem}-{upload.digest[:8]}"
    return {f"{folder}/{stem}{ending}": content for ending, content in zip(ENDINGS, contents, strict=True)}


def _title(upload: Upload) -> str:
    return f"{upload.name} ({upload.note})" if upload.note else upload.name
