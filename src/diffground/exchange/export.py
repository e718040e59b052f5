"""Shards of stage synthesize -> data sets in the formats of other tools, shard by shard."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diffground.data.labelled import META
from diffground.data.review import read_review
from diffground.data.shards import read_shard
from diffground.errors import UserError
from diffground.exchange.card import dataset_card
from diffground.exchange.coco import CocoFormat
from diffground.exchange.counts import Counts
from diffground.exchange.folder import ExportFolder, write_once
from diffground.exchange.hugging_face import HuggingFaceFormat, front_matter
from diffground.exchange.plan import Filters, Overview, Plan
from diffground.exchange.png import PngFormat
from diffground.exchange.samples import Categories, ExportSample, read_facts
from diffground.exchange.split import SPLITS, parse_split
from diffground.exchange.target import Format, Target
from diffground.exchange.voc import VocFormat
from diffground.exchange.yolo import YoloFormat
from diffground.runtime.progress import Progress

FORMATS: Mapping[str, type[Format]] = {
    "voc": VocFormat,
    "coco": CocoFormat,
    "yolo": YoloFormat,
    "hf": HuggingFaceFormat,
    "png": PngFormat,
}


@dataclass(frozen=True)
class ExportOptions:
    """As the command line gives them; checked by export_shards."""

    formats: tuple[str, ...]
    split: str = "1"
    """Shares of train, val and test."""
    seed: int = 0
    min_quality: float | None = None
    review: Path | None = None
    per_category: int | None = None
    polygons: bool = False


def export_shards(shards: Path, out: Path, *, categories: Categories, options: ExportOptions) -> list[str]:
    """Write the samples of `shards` to `out`, with several formats to a folder of each format's name in `out`.

    The same call resumes a killed export. Returns lines that say what was written and what was left out.
    Raises: UserError for options out of range, shards that cannot be read, a label or category without a name, and an
    `out` with other files or other settings.
    """
    filters = _check(shards, out, options)
    with closing(Plan(shards, filters=filters, categories=categories)) as plan:
        overview = plan.overview
        if not overview.kept:
            raise UserError(f"{shards}: no sample is left to export; {_left_out(overview, options)}")
        rules = _rules(options)
        samples = {"categories": categories.names, "used categories": categories.used, "samples": overview.digest}
        folder = ExportFolder(out, settings={**rules, **samples})
        finished = folder.summary()
        if finished is None:
            folder.drop_partial_files()
            splits = tuple(name for name in SPLITS if overview.kept[name])
            targets = {name: _target(name, folder, categories, splits, options) for name in options.formats}
            counts = _write(plan, {name: FORMATS[name](target) for name, target in targets.items()}, folder, categories)
            for name, target in targets.items():
                _write_card(target, name, counts=counts, overview=overview, rules=rules)
            for target in targets.values():
                shutil.rmtree(target.work, ignore_errors=True)
            finished = {"lines": _summary(out, counts, overview, options)}
            folder.finish(finished)
            return list(finished["lines"])
        return [f"{out}: was complete, nothing was written", *finished["lines"]]


def _check(shards: Path, out: Path, options: ExportOptions) -> Filters:
    unknown = [name for name in options.formats if name not in FORMATS]
    if unknown or not options.formats:
        got = f", got '{unknown[0]}'" if unknown else "; give at least one"
        raise UserError(f"--format must be one of {', '.join(FORMATS)}{got}")
    if len(set(options.formats)) < len(options.formats):
        raise UserError(f"--format names {', '.join(options.formats)}; name each once")
    if options.polygons and "coco" not in options.formats:
        raise UserError(f"--polygons is for --format coco, which is not among {', '.join(options.formats)}")
    if options.min_quality is not None and not 0 <= options.min_quality <= 1:
        raise UserError(f"--min-quality must be in 0..1, got {options.min_quality:g}")
    if options.per_category is not None and options.per_category < 1:
        raise UserError(f"--per-category must be at least 1, got {options.per_category}")
    if options.review is not None and not options.review.is_file():
        raise UserError(f"--review {options.review}: no such file")
    if out.resolve().is_relative_to(shards.resolve()):
        raise UserError(f"--out {out} must lie outside of the shards' folder {shards}")
    return Filters(
        shares=parse_split(options.split),
        seed=options.seed,
        min_quality=options.min_quality,
        review=None if options.review is None else read_review(options.review),
        per_category=options.per_category,
    )


def _rules(options: ExportOptions) -> dict[str, Any]:
    """What the files depend on in addition to the samples, as the user names it. A review counts by its content."""
    review = options.review
    return {
        "--format": ", ".join(options.formats),
        "--split": ",".join(f"{share:g}" for share in parse_split(options.split)),
        "--seed": options.seed,
        "--min-quality": options.min_quality,
        "--review": None if review is None else f"sha256 {hashlib.sha256(review.read_bytes()).hexdigest()[:16]}",
        "--per-category": options.per_category,
        "--polygons": options.polygons,
        "diffground": version("diffground"),
    }


def _target(
    name: str, folder: ExportFolder, categories: Categories, splits: tuple[str, ...], options: ExportOptions
) -> Target:
    return Target(
        root=folder.out if len(options.formats) == 1 else folder.out / name,
        work=folder.state / name,
        categories=categories,
        splits=splits,
        polygons=options.polygons,
    )


def _write(plan: Plan, formats: Mapping[str, Format], folder: ExportFolder, categories: Categories) -> Counts:
    """Write every shard that is not finished, then what needs all of them."""
    counts = _finished(plan, folder)
    with Progress(plan.overview.kept.total(), description="export", initial=counts.num_images) as progress:
        for path in plan.shards:
            if folder.shard(path.stem) is not None:
                continue
            kept, of_shard = plan.kept(path.stem), Counts()
            for sample in read_shard(path):
                if sample.key not in kept:
                    continue
                number, split = kept[sample.key]
                facts = read_facts(sample.members[META], place=sample.place)
                exported = ExportSample(sample.key, number, split, facts, sample, categories)
                for writer in formats.values():
                    writer.add(exported)
                of_shard.add(exported)
                progress.advance()
            for writer in formats.values():
                writer.end_shard(path.stem)
            folder.finish_shard(path.stem, vars(of_shard))
    for writer in formats.values():
        writer.finish(plan)
    return _finished(plan, folder)


def _finished(plan: Plan, folder: ExportFolder) -> Counts:
    """Of all finished shards."""
    counts = Counts()
    for path in plan.shards:
        of_shard = folder.shard(path.stem)
        if of_shard is not None:
            counts.update(of_shard)
    return counts


def _write_card(target: Target, name: str, *, counts: Counts, overview: Overview, rules: Mapping[str, Any]) -> None:
    card = dataset_card(
        name,
        categories=target.categories,
        splits=target.splits,
        counts=counts,
        overview=overview,
        rules=rules,
        version=version("diffground"),
        front_matter=front_matter(target) if name == "hf" else "",
    )
    write_once(target.root / "README.md", lambda: card.encode())


def _summary(out: Path, counts: Counts, overview: Overview, options: ExportOptions) -> list[str]:
    images = ", ".join(f"{split} {counts.images[split]}" for split in SPLITS if counts.images[split])
    lines = [f"{out}: {', '.join(options.formats)}; {counts.num_images} images ({images})"]
    if overview.left_out:
        lines.append(f"left out: {_left_out(overview, options)}")
    if overview.few:
        fewer = ", ".join(f"{name} {kept}" for name, kept in overview.few.items())
        lines.append(f"fewer than {options.per_category} images: {fewer}")
    asked = [name for name, share in zip(SPLITS, parse_split(options.split), strict=False) if share > 0]
    missing = [name for name in asked if not overview.kept[name]]
    if missing:
        lines.append(f"no image in {', '.join(missing)}: there are too few different prompts; another --seed may help")
    if counts.further["empty"] or counts.further["not_found"]:
        lines.append(
            f"images without an object: {counts.further['empty']}; "
            f"named categories without a pixel in their image: {counts.further['not_found']}"
        )
    if counts.further["ignored"] and "yolo" in options.formats:
        lines.append(f"images with ignored pixels (255), which are background in yolo: {counts.further['ignored']}")
    return lines


def _left_out(overview: Overview, options: ExportOptions) -> str:
    reasons = {
        "quality": f"below --min-quality {options.min_quality}",
        "review": "rejected in --review",
        "per_category": f"over --per-category {options.per_category}",
    }
    parts = [f"{num} {reasons[name]}" for name, num in overview.left_out.items()]
    return f"{', '.join(parts) or 'none is there'} (of {overview.num_samples} samples)"
