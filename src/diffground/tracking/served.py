"""What MLflow serves: a segmenter, or a grounding module with its generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.pyfunc import PythonModel

from diffground.errors import UserError


class _Segment:
    def load_context(self, context: Any) -> None:
        from diffground.runtime.device import pick_device
        from diffground.segmentation.maskformer import MaskFormerSegmenter

        device = pick_device((context.model_config or {}).get("device", "auto"))
        self._segmenter = MaskFormerSegmenter.load(Path(context.artifacts["model"]), device=device)

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def] # see SegmenterModel
        """Images uint8 (H, W, 3), as an array (B, H, W, 3) or a list -> labels uint8 (B, H, W), 0 background.

        A list of images of different sizes gives a list of label maps. Raises: UserError for anything else.
        """
        images = [_image(image, i) for i, image in enumerate(model_input)]
        labels = [scores.argmax(axis=0).astype(np.uint8) for scores in self._segmenter.predict(images)]
        same_size = len({label.shape for label in labels}) == 1
        return np.stack(labels) if same_size else labels


class _Ground:
    def load_context(self, context: Any) -> None:
        from diffground.diffusion.generator import Generator
        from diffground.grounding.prediction import Grounder
        from diffground.runtime.device import pick_device, pick_dtype
        from diffground.runtime.fingerprint import checkpoint_fingerprint

        self._config = dict(context.model_config)
        checkpoint = self._config["generator"]
        if Path(checkpoint).exists() and checkpoint_fingerprint(checkpoint) != self._config["generator_sha256"]:
            raise UserError(
                f"{checkpoint}: not the generator that the grounding module was trained on; give that one's folder or "
                "hub id as model_config={'generator': …}"
            )
        device = pick_device(self._config["device"])
        self._generator = Generator.load(
            checkpoint, device=device, dtype=pick_dtype(self._config["dtype"], device),
            image_size=self._config["image_size"],
        )  # fmt: skip
        self._grounder = Grounder.load(Path(context.artifacts["model"]), generator=self._generator, device=device)

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def] # see SegmenterModel
        """Records {prompt, categories, seed} -> {image uint8 (H, W, 3), masks bool (Q, H, W)} of each.

        Masks are disjoint, in the order of the record's categories. Raises: UserError for a record that is none, and
        for a category that its prompt does not name.
        """
        records = model_input.to_dict(orient="records") if hasattr(model_input, "to_dict") else model_input
        return [self._ground(record) for record in records]

    def _ground(self, record: Mapping[str, Any]) -> dict[str, Any]:
        from diffground.grounding.prediction import resolve_overlaps
        from diffground.prompts import token_spans

        missing = {"prompt", "categories"} - set(record)
        if missing:
            raise UserError(f"a record needs 'prompt' and 'categories', got {sorted(map(str, record))}")
        prompt, words, c = str(record["prompt"]), list(record["categories"]), self._config
        for word, positions in zip(words, token_spans(self._generator.tokenizer, prompt, words), strict=True):
            if not positions:
                raise UserError(f"the prompt '{prompt}' does not contain the words '{word}'")
        samples = self._generator.sample(
            [prompt], [int(record.get("seed", 0))], num_steps=c["num_steps"], guidance_scale=c["guidance_scale"],
            tapped_step=c["tapped_step"],
        )  # fmt: skip
        probs = self._grounder.probs(
            latents=samples.latents, prompts=[prompt], words=[words], timestep=samples.timestep,
            image_size=c["image_size"],
        )[0]  # fmt: skip
        return {
            "image": samples.images[0],
            "masks": resolve_overlaps(probs.numpy(), mask_threshold=c["mask_threshold"]),
        }


# MLflow takes type hints of `predict` for the signature; none can say what an image is. It complains of their absence
# where a subclass of its own defines `predict`, which is why here another class does.
class SegmenterModel(_Segment, PythonModel):
    """Images -> label maps; see `_Segment.predict`."""


class GroundingModel(_Ground, PythonModel):
    """Prompts -> images with masks; see `_Ground.predict`."""


def _image(image: Sequence[Any] | np.ndarray, i: int) -> np.ndarray:
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype.kind not in "iu":
        raise UserError(f"image {i} must be whole numbers (H, W, 3), got {array.dtype} {array.shape}")
    if array.dtype != np.uint8 and (array.min() < 0 or array.max() > 255):
        raise UserError(f"image {i} must have values of 0..255, got {array.min()}..{array.max()}")
    return array.astype(np.uint8)
