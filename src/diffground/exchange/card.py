"""The dataset card: README.md of an export."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

import yaml

from diffground.exchange.counts import Counts
from diffground.exchange.plan import Overview
from diffground.exchange.samples import Categories


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
    words = yaml.safe_load(folder.joinpath("card.yaml").read_text(encoding="utf-8"))
    about = words["formats"][name]
    return Template(folder.joinpath("card.md").read_text(encoding="utf-8")).substitute(
        front_matter=front_matter,
        num_kept=counts.num_images,
        table=_table(categories, splits, counts),
        images=", ".join(f"{split} {counts.images[split]}" for split in splits),
        empty=counts.further["empty"],
        not_found=counts.further["not_found"],
        ignored=counts.further["ignored"],
        num_samples=overview.num_samples,
        rules=_rules(overview, rules, words["rules"]),
        made=_made(overview, words["settings"]),
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


def _rules(overview: Overview, rules: Mapping[str, Any], sentences: Sequence[tuple[str, str, str]]) -> str:
    lines = [f"- Split `--split {rules['--split']}` by prompt, seed {rules['--seed']}."]
    for option, reason, sentence in sentences:
        if rules[option] is not None:
            lines.append(f"- {sentence.format(num=overview.left_out[reason], value=rules[option])}")
    if overview.few:
        fewer = ", ".join(f"{name} {kept}" for name, kept in overview.few.items())
        lines.append(f"- Categories with fewer than {rules['--per-category']} images: {fewer}.")
    if len(lines) == 1:
        lines.append("- No filter was applied.")
    if rules["--polygons"]:
        lines.append("- COCO's masks are polygons (`--polygons`).")
    return "\n".join(lines)


def _made(overview: Overview, titles: Mapping[str, str]) -> str:
    names = [*(name for name in titles if name in overview.settings), *sorted(set(overview.settings) - set(titles))]
    lines = [f"- {titles.get(name, name)}: {_values(overview.settings[name])}" for name in names]
    seeds = "not recorded" if overview.seeds is None else f"{overview.seeds[0]} to {overview.seeds[1]}, one per image"
    return "\n".join([*lines, f"- seeds of the noise: {seeds}"])


def _values(values: list[Any]) -> str:
    return "; ".join(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values)
