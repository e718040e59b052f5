"""A trained segmenter as one ONNX file, which runs without torch and transformers.

Example (numpy, pillow and onnxruntime), after `diffground export-onnx models/mini/segmenter segmenter.onnx`:

>>> import json
>>> import numpy as np
>>> import onnxruntime
>>> from PIL import Image
>>> session = onnxruntime.InferenceSession("segmenter.onnx", providers=["CPUExecutionProvider"])
>>> about = session.get_modelmeta().custom_metadata_map
>>> size, names = int(about["image_size"]), ["background", *json.loads(about["categories"])]
>>> image = Image.open("reports/figures/real.png").convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
>>> [scores] = session.run(["scores"], {"images": np.asarray(image)[None]})  # (1, K + 1, size, size)
>>> {names[label] for label in np.unique(scores[0].argmax(axis=0))} <= set(names)
True
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffground.atomic import atomic_file
from diffground.errors import UserError
from diffground.segmentation.maskformer import MEAN, STD, MaskFormerSegmenter, normalise

INPUT, OUTPUT = "images", "scores"


def export_onnx(folder: Path, file: Path) -> int:
    """Write the segmenter of a model folder as `file`, whole or not at all. Returns its size in bytes.

    Input `images`: uint8 (B, S, S, 3) RGB, S the segmenter's image size, any B of 1 or more; the graph normalises them.
    Output `scores`: float32 (B, K + 1, S, S), 0 or more, larger is likelier; row 0 is the background, row i the i-th
    category. The file's metadata has categories (JSON list), image_size, mean, std, resize and diffground (version).
    Raises: UserError for a folder that is no segmenter, a name without .onnx, and where the extra `onnx` is missing.
    """
    if file.suffix.lower() != ".onnx":
        raise UserError(f"the file to write must end in .onnx, got '{file}'")
    try:
        import onnx
        import onnxscript  # noqa: F401  what torch's exporter needs
    except ModuleNotFoundError as error:
        raise UserError(f"export-onnx needs '{error.name}'; run pip install 'diffground[onnx]'") from None
    segmenter = MaskFormerSegmenter.load(folder, device=torch.device("cpu"))
    size = segmenter.image_size
    program = _export(_Scores(segmenter.model).eval(), torch.zeros(2, size, size, 3, dtype=torch.uint8))
    model = program.model_proto
    metadata = {
        "categories": json.dumps(list(segmenter.categories), ensure_ascii=False),
        "image_size": str(size),
        "mean": str(MEAN),
        "std": str(STD),
        "resize": "bilinear with antialiasing, to image_size squared",
        "diffground": version("diffground"),
    }
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    with atomic_file(file) as partial:
        partial.write_bytes(model.SerializeToString())
    return file.stat().st_size


class _Scores(torch.nn.Module):
    """What MaskFormerSegmenter.predict computes, of images that have the segmenter's size."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.permute(0, 3, 1, 2).float() / 255  # (B, 3, S, S)
        outputs = self.model(pixel_values=normalise(pixels))
        classes = outputs.class_queries_logits.softmax(dim=-1)[..., :-1]  # (B, Q, K + 1)
        masks = F.interpolate(
            outputs.masks_queries_logits, size=images.shape[1:3], mode="bilinear", align_corners=False
        )  # (B, Q, S, S)
        return torch.einsum("bqc,bqhw->bchw", classes, masks.sigmoid())


def _export(module: torch.nn.Module, example: Tensor) -> Any:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        # the exporter tells its progress on stdout, and warns of its own inside
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                module,
                (example,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
