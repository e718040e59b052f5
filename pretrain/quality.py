"""The content of prompts, the results of detector and judge, and the shares of images in which they agree."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

KINDS = ("one_object", "two_objects", "coloured", "placed")


@dataclass(frozen=True)
class Asked:
    """A prompt and its meaning; `seed` is that of the sample's noise."""

    prompt: str
    categories: tuple[str, ...]
    seed: int
    colour: str | None = None
    place: str | None = None

    @property
    def plain(self) -> bool:
        return self.colour is None and self.place is None

    @property
    def kind(self) -> str:
        """One of KINDS: a prompt that names a colour or a place has a kind of its own."""
        if self.plain:
            return "one_object" if len(self.categories) == 1 else "two_objects"
        return "coloured" if self.colour is not None else "placed"


@dataclass(frozen=True)
class Outcome:
    """One image: its prompt and the results of detector and judge."""

    asked: Asked
    detected: frozenset[str]
    """The named categories that the detector finds."""
    judged: frozenset[str]
    """All concepts that the judge finds, named or not."""
    colour: str | None
    """The judge's colour word for the object, None for none; valid only with one object."""
    place: str
    """The judge's place."""

    @property
    def detector_found(self) -> bool:
        return self.detected.issuperset(self.asked.categories)

    @property
    def judge_found(self) -> bool:
        return self.judged.issuperset(self.asked.categories)

    @property
    def judge_exact(self) -> bool:
        return self.judged == set(self.asked.categories)

    @property
    def colour_obeyed(self) -> bool:
        return self.colour == self.asked.colour

    @property
    def place_obeyed(self) -> bool:
        return self.place == self.asked.place


def share(held: Iterable[bool]) -> float | None:
    """Share of true values, 0..1; None without values."""
    values = list(held)
    return sum(values) / len(values) if values else None


def grouped(values: Sequence[T], asked: Sequence[Asked], *, pascal: Collection[str]) -> dict[str, list[T]]:
    """`values`, one per prompt, by KINDS, and plain ones also by whether all their categories are in `pascal`."""
    pairs = list(zip(values, asked, strict=True))
    groups = {kind: [value for value, wish in pairs if wish.kind == kind] for kind in KINDS}
    for kind in ("one_object", "two_objects"):
        for name, wanted in (("pascal", True), ("further", False)):
            groups[f"{name}_{kind}"] = [
                value for value, wish in pairs if wish.kind == kind and (set(wish.categories) <= set(pascal)) is wanted
            ]
    return groups


def rates(outcomes: Sequence[Outcome], *, pascal: Collection[str]) -> dict[str, Any]:
    """Found-rates of detector and judge, colours and places obeyed: shares, 0..1, None for what no prompt names.

    `pascal`: categories that are scored on their own too; the others are `further`, and so is a pair with one of them.
    `exact`: the judge sees what was named and nothing else.
    """
    groups = grouped(outcomes, [o.asked for o in outcomes], pascal=pascal)
    coloured, placed = groups["coloured"], groups["placed"]
    exact = {f"{kind}_exact": share(o.judge_exact for o in groups[kind]) for kind in ("one_object", "two_objects")}
    return {
        "num_prompts": {name: len(group) for name, group in groups.items()},
        "detector": {f"{name}_found": share(o.detector_found for o in group) for name, group in groups.items()},
        "judge": {f"{name}_found": share(o.judge_found for o in group) for name, group in groups.items()} | exact,
        "colours_obeyed": share(o.colour_obeyed for o in coloured),
        "colours_obeyed_by_word": {
            word: share(o.colour_obeyed for o in coloured if o.asked.colour == word)
            for word in sorted({str(o.asked.colour) for o in coloured})
        },
        "no_colour_unasked": share(o.colour is None for o in groups["one_object"]),
        "places_obeyed": share(o.place_obeyed for o in placed),
        "places_obeyed_by_phrase": {
            phrase: share(o.place_obeyed for o in placed if o.asked.place == phrase)
            for phrase in sorted({str(o.asked.place) for o in placed})
        },
    }


def category_rows(outcomes: Sequence[Outcome], *, pascal: Collection[str]) -> list[dict[str, Any]]:
    """One row per category, sorted by how rarely the judge finds it in one-object images: numbers of prompts, and
    shares 0..1 of them. In `two_objects` the category alone counts, not the pair.
    """
    rows = []
    for category in sorted({category for o in outcomes for category in o.asked.categories}):
        row: dict[str, Any] = {"category": category, "group": "pascal" if category in pascal else "further"}
        for kind in ("one_object", "two_objects"):
            own = [o for o in outcomes if o.asked.kind == kind and category in o.asked.categories]
            row[f"{kind}_prompts"] = len(own)
            row[f"{kind}_detector_found"] = share(category in o.detected for o in own)
            row[f"{kind}_judge_found"] = share(category in o.judged for o in own)
        own = [o for o in outcomes if o.asked.kind == "coloured" and category in o.asked.categories]
        row["coloured_prompts"] = len(own)
        row["colours_obeyed"] = share(o.colour_obeyed for o in own)
        rows.append(row)
    return sorted(rows, key=lambda row: (row["one_object_judge_found"] is None, row["one_object_judge_found"]))
