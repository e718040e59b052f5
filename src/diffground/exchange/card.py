"""The dataset card: README.md of an export."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffground.exchange.plan import Overview
from diffground.exchange.samples import Categories
from diffground.exchange.target import About

_MADE = {
    "generator": "generator",
    "grounding": "grounding module",
    "mask_threshold": "mask threshold",
    "image_size": "image size, px",
    "sampler": "sampler",
    "num_steps": "steps",
    "timesteps": "timesteps",
    "guidance_scale": "guidance scale",
    "guidance_interval": "guidance interval",
    "libraries": "versions",
}
"""Setting in meta.json -> what the card calls it; others are listed after these by their own names."""


@dataclass(frozen=True)
class Counts:
    """Of the written samples."""

    images: Mapping[str, int]
    """Split -> images."""
    with_category: Mapping[str, Mapping[str, int]]
    """Split -> category -> images in which it has pixels."""
    objects: Mapping[str, int]
    """Category -> connected regions."""
    empty: int
    """Images without a pixel of any category."""
    not_found: int
    """Times that a prompt names a category that has no pixel in its image."""
    ignored: int
    """Images with pixels of label 255."""


def dataset_card(
    *,
    about: About,
    categories: Categories,
    splits: tuple[str, ...],
    counts: Counts,
    overview: Overview,
    rules: Mapping[str, Any],
    version: str,
    front_matter: str = "",
) -> str:
    """Markdown. rules: the options of the export, name -> value."""
    num_kept = sum(counts.images.values())
    example = about.example.replace("{split}", splits[0])
    return f"""{front_matter}# Synthetic images with segmentation masks

{num_kept} images that a text-to-image diffusion model generated. Their masks were read from the model's features by a
grounding module (`diffground`); no person drew or checked them unless a review is named below.

## Contents

{_table(categories, splits, counts)}

- Images: {", ".join(f"{split} {counts.images.get(split, 0)}" for split in splits)}. Each prompt is in one split only.
- Images without any object: {counts.empty}. Named categories that have no pixel in their image: {counts.not_found}.
- Images with ignored pixels: {counts.ignored}.

## What was left out

Of {overview.num_samples} samples, {num_kept} were kept.

{_rules(overview, rules)}

## How it was made

{_made(overview)}
- exported by: diffground {version}

## Files

{about.layout}

## How to load it

```python
{example}```

## Licence

The images and masks are outputs of the generator named above: the licence and terms of use of its checkpoint apply.
The grounding module and the export add no terms of their own.
"""


def _table(categories: Categories, splits: tuple[str, ...], counts: Counts) -> str:
    rows = [
        f"| label | category | objects | {' | '.join(f'images, {split}' for split in splits)} |",
        f"| ---: | --- | ---: | {' | '.join('---:' for _ in splits)} |",
    ]
    for label, name in categories.labels.items():
        cells = " | ".join(str(counts.with_category.get(split, {}).get(name, 0)) for split in splits)
        rows.append(f"| {label} | {name} | {counts.objects.get(name, 0)} | {cells} |")
    return "\n".join(rows)


def _rules(overview: Overview, rules: Mapping[str, Any]) -> str:
    num = overview.left_out
    lines = [f"- Split `--split {rules['--split']}` by prompt, seed {rules['--seed']}."]
    if rules["--min-quality"] is not None:
        lines.append(f"- {num['quality']} with a quality below {rules['--min-quality']} (`--min-quality`).")
    if rules["--review"] is not None:
        lines.append(f"- {num['review']} that a person rejected (`--review`).")
    if rules["--per-category"] is not None:
        limit = rules["--per-category"]
        lines.append(f"- {num['per_category']} so that no category has more than {limit} images (`--per-category`).")
        if overview.few:
            fewer = ", ".join(f"{name} {kept}" for name, kept in overview.few.items())
            lines.append(f"- Categories with fewer than {limit} images: {fewer}.")
    if len(lines) == 1:
        lines.append("- No filter was applied.")
    if rules["--polygons"]:
        lines.append("- COCO's masks are polygons (`--polygons`).")
    return "\n".join(lines)


def _made(overview: Overview) -> str:
    names = [*(name for name in _MADE if name in overview.settings), *sorted(set(overview.settings) - set(_MADE))]
    lines = [f"- {_MADE.get(name, name)}: {_values(overview.settings[name])}" for name in names]
    seeds = "not recorded" if overview.seeds is None else f"{overview.seeds[0]} to {overview.seeds[1]}, one per image"
    return "\n".join([*lines, f"- seeds of the noise: {seeds}"])


def _values(values: list[Any]) -> str:
    return "; ".join(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values)
