"""Masks for words, from the features of a text-to-image diffusion model.

    from diffground import GroundedPipeline

    pipe = GroundedPipeline.from_pretrained("models/mini/diffusion", grounding="models/mini/grounding")
    out = pipe(["a photograph of a dog and a cat"], words=["dog", "cat"])

Names that are not listed in `__all__` may move.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from diffground.errors import UserError

if TYPE_CHECKING:
    from diffground.grounded import GroundedPipeline
    from diffground.grounded_output import GroundedOutput, GroundedSample
    from diffground.segmentation.pipeline import Segmentation, SegmenterPipeline, load_segmenter
    from diffground.vocabulary import Vocabulary, load_vocabulary

__version__ = "0.2.0"
__all__ = [
    "GroundedOutput",
    "GroundedPipeline",
    "GroundedSample",
    "Segmentation",
    "SegmenterPipeline",
    "UserError",
    "Vocabulary",
    "__version__",
    "load_segmenter",
    "load_vocabulary",
]

_PLACES = {
    "diffground.grounded": ("GroundedPipeline",),
    "diffground.grounded_output": ("GroundedOutput", "GroundedSample"),
    "diffground.segmentation.pipeline": ("Segmentation", "SegmenterPipeline", "load_segmenter"),
    "diffground.vocabulary": ("Vocabulary", "load_vocabulary"),
}


def __getattr__(name: str) -> Any:
    """Import what takes seconds (torch, diffusers) when it is first used."""
    for module, names in _PLACES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'diffground' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
