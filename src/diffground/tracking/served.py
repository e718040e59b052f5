"""What MLflow serves: a segmenter, or a grounding module with its generator.

In Python, `predict` takes and gives arrays. Over HTTP, and where params name a `format`, it takes the records of
requests.py and gives the JSON values of answers.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
from mlflow.pyfunc import PythonModel

from diffground.errors import UserError
from diffground.tracking.answers import grounding_answer, segmentation_answer
from diffground.tracking.models import GROUNDING, SEGMENTER
from diffground.tracking.requests import (
    Limits,
    PromptRecord,
    answer_format,
    decode_image,
    encoded_images,
    one_line_errors,
    prompt_records,
)


class _Segment:
    def load_context(self, context: Any) -> None:
        from diffground.segmentation.pipeline import load_segmenter

        device = context.model_config.get("device", "auto")
        self._segmenter = load_segmenter(context.artifacts["model"], device=device)
        self._limits = Limits.of(context.model_config)
        self._one_at_a_time = Lock()  # MLflow's server calls predict from several threads

    def predict(self, model_input, params=None):  # type: ignore[no-untyped-def] # see SegmenterModel
        """Images uint8 (H, W, 3), as an array (B, H, W, 3) or a list -> labels uint8 (B, H, W), 0 background.

        A list of images of different sizes gives a list of label maps. Raises: UserError for anything else.

        Over HTTP, or with params {format}: records {image} -> per record a segmentation_answer. Raises: RequestError.
        """
        mask_format = answer_format(params)
        if mask_format is not None:
            with one_line_errors():
                files = encoded_images(model_input, self._limits)
                return [self._answer(content, f"record {i}", mask_format) for i, content in enumerate(files)]
        images = [_image(image, i) for i, image in enumerate(model_input)]
        labels = [result.labels for result in self._segmenter.predict(images)]
        same_size = len({label.shape for label in labels}) == 1
        return np.stack(labels) if same_size else labels

    def _answer(self, content: bytes, name: str, mask_format: str) -> dict[str, Any]:
        # decoded and segmented one after another: the scores of one large image take gigabytes
        with self._one_at_a_time:
            [result] = self._segmenter.predict([decode_image(content, name, self._limits)])
        return segmentation_answer(result.labels, result.categories, mask_format=mask_format)


class _Ground:
    def load_context(self, context: Any) -> None:
        from diffground.grounded import GroundedPipeline

        config = context.model_config
        self._mask_threshold = config["mask_threshold"]
        self._pipeline = GroundedPipeline.from_pretrained(
            config["generator"],
            grounding=context.artifacts["model"],
            device=config["device"],
            dtype=config["dtype"],
        )
        self._limits = Limits.of(config)
        self._one_at_a_time = Lock()  # the hooks of the UNet serve one call

    def predict(self, model_input, params=None):  # type: ignore[no-untyped-def] # see SegmenterModel
        """Records {prompt, categories, seed} -> per record {image uint8 (H, W, 3), masks bool (Q, H, W)}.

        Masks are disjoint, in the order of the record's categories. Raises: UserError for a record without prompt or
        categories, and for a category that its prompt does not name.

        Over HTTP, or with params {format}: per record a grounding_answer. Raises: RequestError.
        """
        mask_format = answer_format(params)
        if mask_format is not None:
            with one_line_errors():
                return [self._answer(record, mask_format) for record in prompt_records(model_input, self._limits)]
        records = model_input.to_dict(orient="records") if hasattr(model_input, "to_dict") else model_input
        return [self._ground(record) for record in records]

    def _ground(self, record: Mapping[str, Any]) -> dict[str, Any]:
        missing = {"prompt", "categories"} - set(record)
        if missing:
            raise UserError(f"a record needs 'prompt' and 'categories', got {sorted(map(str, record))}")
        image, masks = self._sample(str(record["prompt"]), list(record["categories"]), int(record.get("seed", 0)))
        return {"image": image, "masks": masks}

    def _answer(self, record: PromptRecord, mask_format: str) -> dict[str, Any]:
        image, masks = self._sample(record.prompt, record.categories, record.seed)
        return grounding_answer(image, masks, record.categories, mask_format=mask_format)

    def _sample(self, prompt: str, categories: Sequence[str], seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 (H, W, 3), masks bool (Q, H, W)."""
        with self._one_at_a_time:
            [sample] = self._pipeline(prompt, words=list(categories), seeds=[seed], mask_threshold=self._mask_threshold)
        return np.asarray(sample.image), sample.masks


# MLflow reads type hints of `predict` as the signature, and no hint describes an image. It warns about missing hints
# where a subclass of PythonModel itself defines `predict`, so the methods are in classes of their own.
class SegmenterModel(_Segment, PythonModel):
    """Images -> label maps; see `_Segment.predict`."""


class GroundingModel(_Ground, PythonModel):
    """Prompts -> images with masks; see `_Ground.predict`."""


MODELS: Mapping[str, Any] = {SEGMENTER: SegmenterModel, GROUNDING: GroundingModel}


def _image(image: Sequence[Any] | np.ndarray, i: int) -> np.ndarray:
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype.kind not in "iu":
        raise UserError(f"image {i} must be whole numbers (H, W, 3), got {array.dtype} {array.shape}")
    if array.dtype != np.uint8 and (array.min() < 0 or array.max() > 255):
        raise UserError(f"image {i} must have values of 0..255, got {array.min()}..{array.max()}")
    return array.astype(np.uint8)
