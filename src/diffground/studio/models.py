"""The Studio's models: loaded when they are first used, and used by one request at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from diffground.diffusion.sampling import Sampling
from diffground.grounded import GroundedPipeline
from diffground.grounded_output import GroundedSample
from diffground.interface.pipeline import load_pipeline
from diffground.reproduction.config import Params
from diffground.runtime.device import setup
from diffground.segmentation.pipeline import Segmentation, SegmenterPipeline, load_segmenter

OnPass = Callable[[], None]


class Models:
    """A lock around all of them: two users wait for each other, and memory holds one pass at a time."""

    max_side = 1024
    """Of images that are segmented, px."""

    def __init__(self, params: Params, *, grounding: Path, segmenter: Path) -> None:
        self.params, self.grounding, self.segmenter = params, grounding, segmenter
        self._lock = threading.Lock()
        self._pipeline: GroundedPipeline | None = None
        self._segmenter: SegmenterPipeline | None = None

    def sampling(self, *, num_steps: int, guidance_scale: float) -> Sampling:
        """As `diffground ground` samples, apart from these two numbers. Another number of steps has no timesteps of its
        own in params.yaml: it is sampled as a call of GroundedPipeline with num_steps."""
        base = self.params.generator.sampling
        if num_steps == base.num_steps:
            return replace(base, guidance_scale=guidance_scale)
        with self._lock:
            return self._loaded().sampling_of(num_steps=num_steps, guidance_scale=guidance_scale)

    def generate(
        self, prompt: str, words: Sequence[str], *, seed: int, sampling: Sampling, threshold: float, on_pass: OnPass
    ) -> GroundedSample:
        """Raises: UserError as GroundedPipeline does."""
        with self._lock:
            pipeline = self._loaded()
            with pipeline.watched(on_pass):
                [sample] = pipeline(
                    prompt, words=list(words), seeds=[seed], sampling=sampling, mask_threshold=threshold
                )
        found: GroundedSample = sample
        return found

    def find(
        self, image: np.ndarray, words: Sequence[str], *, prompt: str | None, threshold: float, on_pass: OnPass
    ) -> GroundedSample:
        """image: uint8 (H, W, 3). Raises: UserError as GroundedPipeline.segment does."""
        with self._lock:
            pipeline = self._loaded()
            with pipeline.watched(on_pass):
                return pipeline.segment(image, words=list(words), prompt=prompt, mask_threshold=threshold)

    def segment(self, image: np.ndarray) -> Segmentation:
        """image: uint8 (H, W, 3). Raises: UserError as load_segmenter does."""
        with self._lock:
            if self._segmenter is None:
                self._segmenter = load_segmenter(self.segmenter, device=str(setup(self.params.runtime)))
            return self._segmenter.predict([image])[0]

    def _loaded(self) -> GroundedPipeline:
        if self._pipeline is None:
            self._pipeline = load_pipeline(self.params, grounding=self.grounding)
        return self._pipeline
