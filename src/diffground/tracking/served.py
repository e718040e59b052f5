"""What MLflow serves: a segmenter, or a grounding module with its generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mlflow.pyfunc import PythonModel

from diffground.errors import UserError
from diffground.tracking.models import GROUNDING, SEGMENTER


class _Segment:
    def load_context(self, context: Any) -> None:
        from diffground.segmentation.pipeline import load_segmenter

        device = context.model_config.get("device", "auto")
        self._segmenter = load_segmenter(context.artifacts["model"], device=device)

    def predict(self, model_input, params=None):  # type: ignore[no-untyped-def] # see SegmenterModel
        """Images uint8 (H, W, 3), as an array (B, H, W, 3) or a list -> labels uint8 (B, H, W), 0 background.

        A list of images of different sizes gives a list of label maps. Raises: UserError for anything else.
        """
        images = [_image(image, i) for i, image in enumerate(model_input)]
        labels = [result.labels for result in self._segmenter.predict(images)]
        same_size = len({label.shape for label in labels}) == 1
        return np.stack(labels) if same_size else labels


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

    def predict(self, model_input, params=None):  # type: ignore[no-untyped-def] # see SegmenterModel
        """Records {prompt, categories, seed} -> per record {image uint8 (H, W, 3), masks bool (Q, H, W)}.

        Masks are disjoint, in the order of the record's categories. Raises: UserError for a record without prompt or
        categories, and for a category that its prompt does not name.
        """
        records = model_input.to_dict(orient="records") if hasattr(model_input, "to_dict") else model_input
        return [self._ground(record) for record in records]

    def _ground(self, record: Mapping[str, Any]) -> dict[str, Any]:
        missing = {"prompt", "categories"} - set(record)
        if missing:
            raise UserError(f"a record needs 'prompt' and 'categories', got {sorted(map(str, record))}")
        [sample] = self._pipeline(
            str(record["prompt"]),
            words=list(record["categories"]),
            seeds=[int(record.get("seed", 0))],
            mask_threshold=self._mask_threshold,
        )
        return {"image": np.asarray(sample.image), "masks": sample.masks}


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
