"""The pipeline of params.yaml, for `ground` and `segment`."""

from __future__ import annotations

from pathlib import Path

from diffground.grounded import GroundedPipeline, TextualInversions
from diffground.reproduction.config import Params
from diffground.runtime.device import setup


def load_pipeline(
    params: Params,
    *,
    grounding: Path | None,
    textual_inversions: TextualInversions = (),
    allow_other_generator: bool = False,
) -> GroundedPipeline:
    """The other arguments are those of GroundedPipeline.from_pretrained. Raises: UserError as it does."""
    p = params.generator
    return GroundedPipeline.from_pretrained(
        p.checkpoint,
        grounding=grounding,
        device=str(setup(params.runtime)),
        dtype=p.dtype,
        image_size=p.image_size,
        textual_inversions=textual_inversions,
        config_from=p.config_from or None,
        loras=p.loras,
        allow_other_generator=allow_other_generator,
    )
