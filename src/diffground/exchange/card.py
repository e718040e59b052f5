"""The dataset card: README.md of an export."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Any

import yaml

from diffground.exchange.counts import Counts
from diffground.exchange.plan import Overview
from diffground.exchange.samples import Categories

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


def dataset_card(
    name: str,
    *,
    categories: Categories,
    splits: tuple[str, ...],
    counts: Counts,
    overview: Overview,
    rules: Mapping[str, Any],
    version: str,
    front_matter: str = "",
) -> str:
    """Markdown of the format `name`. rules: the options of the export, name -> value."""
    folder = files("diffground.exchange")
    about = yaml.safe_load(folder.joinpath("formats.yaml").read_text(encoding="utf-8"))[name]
    return Template(folder.joinpath("card.md").read_text(encoding="utf-8")).substitute(
        front_matter=front_matter,
        num_kept=counts.num_images,
        table=_table(categories, splits, counts),
        images=", ".join(f"{split} {counts.images[split]}" for split in splits),
        empty=counts.further["empty"],
        not_found=counts.further["not_found"],
        ignored=counts.further["ignored"],
        num_samples=overview.num_samples,
        rules=_rules(overview, rules),
        made=_made(overview),
        version=version,
        layout=about["layout"],
        example=about["example"].replace("{split}", splits[0]),
    )


def _table(categories: Categories, splits: tuple[str, ...], counts: Counts) -> str:
    rows = [
        f"| label | category | objects | {' | '.join(f'images, {split}' for split in splits)} |",
        f"| ---: | --- | ---: | {' | '.join('---:' for _ in splits)} |",
    ]
    for label, name in categories.labels.items():
        cells = " | ".join(str(counts.with_category[split][name]) for split in splits)
        rows.append(f"| {label} | {name} | {counts.objects[name]} | {cells} |")
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
