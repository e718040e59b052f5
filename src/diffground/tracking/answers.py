"""What a served model answers over HTTP: JSON values with masks as COCO's run lengths, or as PNG in base64."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import numpy as np

from diffground.data.shards import encode_mask, encode_png
from diffground.exchange.objects import mask_box, run_lengths


def segmentation_answer(labels: np.ndarray, categories: Iterable[str], *, mask_format: str) -> dict[str, Any]:
    """Labels uint8 (H, W), 0 background -> width, height, and each category that has a pixel, in label order."""
    present = np.bincount(labels.ravel(), minlength=1)
    described = [
        _category(name, labels == label, mask_format)
        for label, name in enumerate(categories, start=1)
        if label < len(present) and present[label]
    ]
    return {"width": labels.shape[1], "height": labels.shape[0], "categories": described}


def grounding_answer(
    image: np.ndarray, masks: np.ndarray, categories: Iterable[str], *, mask_format: str
) -> dict[str, Any]:
    """Image uint8 (H, W, 3), masks bool (Q, H, W) -> width, height, image (PNG in base64), and every category."""
    described = [_category(name, mask, mask_format) for name, mask in zip(categories, masks, strict=True)]
    height, width = masks.shape[1:]
    return {"width": width, "height": height, "image": _in_base64(encode_png(image)), "categories": described}


def _category(name: str, mask: np.ndarray, mask_format: str) -> dict[str, Any]:
    """name, area (px), box (x, y, width, height in px; zeros without a pixel) and mask."""
    return {
        "name": name,
        "area": int(mask.sum()),
        "box": mask_box(mask),
        "mask": run_lengths(mask) if mask_format == "rle" else _in_base64(encode_mask(mask)),
    }


def _in_base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
