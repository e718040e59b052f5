"""The generator's training scenes: the same index gives the same scene on every machine."""

from __future__ import annotations

from typing import Any

import numpy as np
from common import sample_scene
from pascal import COCO_NAMES, PHRASES

from diffground.data.stickers.scenes import Scene, caption
from diffground.data.stickers.sprites import SpriteBook


def training_scene(book: SpriteBook, params: dict[str, Any], index: int) -> tuple[Scene, str]:
    """Scene `index` of params.yaml's section scenes, and its caption."""
    p = params["scenes"]
    choice = np.random.default_rng([params["seed"], 2, index])
    num_objects = int(choice.choice(1 + np.arange(len(p["num_objects_share"])), p=p["num_objects_share"]))
    scene = sample_scene(
        book,
        seed=params["seed"] + 3,
        index=index,
        num_objects=num_objects,
        further_frac=p["further_frac"],
        colour_frac=p["colour_frac"],
        mirrored_frac=p["mirrored_frac"],
        image_size=params["image_size"],
    )
    with_place = choice.random() < p["place_frac"]
    phrases = PHRASES | COCO_NAMES if choice.random() < p["coco_names_frac"] else PHRASES
    return scene, caption(scene, phrases=phrases, with_place=with_place)
