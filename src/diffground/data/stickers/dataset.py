"""The mini world on disk, in PASCAL VOC layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from diffground.data.stickers.scenes import compose_scene
from diffground.data.stickers.sprites import Sprite, load_sprites
from diffground.data.voc import VocItem, write_voc
from diffground.errors import UserError

_NUM_OBJECTS_SHARE = {1: 0.45, 2: 0.35, 3: 0.20}
_CARD = "sticker_voc.json"


def compose_dataset(
    root: Path, *, categories: Sequence[str], num_train: int, num_val: int, image_size: int, seed: int
) -> dict[str, dict[str, int]]:
    """Write the lists `train` and `val` below `root`, replacing what was composed there before.

    `categories`: of art.yaml, in label order. `val` shows the held-out artworks; a further concept has none and shows
    the same in both. One to three objects per image, categories equally often in turn. Returns list -> category ->
    number of images. Raises: UserError when `root` holds something else, and for a missing artwork.
    """
    if root.is_dir() and any(root.iterdir()) and not (root / _CARD).is_file():
        raise UserError(f"{root}: holds files that were not composed here; move them or set data.source to 'voc'")
    book = load_sprites()
    labels = {category: i + 1 for i, category in enumerate(categories)}
    partial = root.with_name(f"{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        counts = {}
        for name, num, sprites in (("train", num_train, book.train), ("val", num_val, book.val)):
            plan = plan_scenes(num, categories=categories, rng=np.random.default_rng([seed, int(name == "val")]))
            scenes = _compose(name, plan, sprites | book.further, labels=labels, image_size=image_size, seed=seed)
            write_voc(partial, name, scenes)
            counts[name] = {c: sum(c in scene for scene in plan) for c in categories}
        held_out = book.held_out()
        card = {
            "art": "Twemoji (CC-BY 4.0), OpenMoji (CC BY-SA 4.0), own drawings",
            "held_out_artworks": {c: held_out.get(c, []) for c in categories},
            "images_with_category": counts,
        }
        (partial / _CARD).write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")
        shutil.rmtree(root, ignore_errors=True)
        partial.replace(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return counts


def plan_scenes(num: int, *, categories: Sequence[str], rng: np.random.Generator) -> list[tuple[str, ...]]:
    """Of `categories`, 1 to 3 different ones per scene; over all scenes their numbers differ by one at most."""
    sizes = rng.choice(list(_NUM_OBJECTS_SHARE), size=num, p=list(_NUM_OBJECTS_SHARE.values()))
    used = np.zeros(len(categories))
    scenes = []
    for size in sizes:
        least_used_first = np.lexsort((rng.random(len(used)), used))
        chosen = rng.permutation(least_used_first[:size])
        used[chosen] += 1
        scenes.append(tuple(categories[i] for i in chosen))
    return scenes


def _compose(
    name: str,
    plan: list[tuple[str, ...]],
    artworks: dict[str, list[Sprite]],
    *,
    labels: dict[str, int],
    image_size: int,
    seed: int,
) -> Iterator[VocItem]:
    for i, categories in enumerate(plan):
        rng = np.random.default_rng([seed, int(name == "val"), i])
        sprites = [artworks[c][rng.integers(len(artworks[c]))] for c in categories]
        scene = compose_scene(rng, sprites=sprites, image_size=image_size)
        label = np.zeros(scene.masks.shape[1:], dtype=np.uint8)
        objects = np.zeros_like(label)
        for number, (category, mask) in enumerate(zip(categories, scene.masks, strict=True), start=1):
            label[mask] = labels[category]
            objects[mask] = number
        yield VocItem(id=f"{name}_{i:06d}", image=scene.image, label=label, objects=objects)
