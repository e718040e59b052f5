"""Charts of scores and losses, as PNG files that are the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # no display; before pyplot is imported

import matplotlib.pyplot as plt

COLOURS = ("#2a6f97", "#e07a5f", "#a9a9a9", "#6a994e", "#f2cc8f")
_DPI = 120


def grouped_bars(path: Path, scores: Mapping[str, Mapping[str, float | None]], *, title: str, unit: str) -> None:
    """Draw scores[series][group] as bars in each group; the place of a missing score stays empty."""
    groups = list(dict.fromkeys(group for series in scores.values() for group in series))
    width = 0.8 / max(len(scores), 1)
    figure, axes = plt.subplots(figsize=(1.6 + 1.3 * max(len(groups), 2), 3.4), layout="constrained")
    for i, (name, series) in enumerate(scores.items()):
        heights = [series.get(group) for group in groups]
        places = [g + (i - (len(scores) - 1) / 2) * width for g, height in enumerate(heights) if height is not None]
        known = [height for height in heights if height is not None]
        bars = axes.bar(places, known, width * 0.94, label=name, color=COLOURS[i % len(COLOURS)])
        axes.bar_label(bars, fmt="%.0f", fontsize=7, padding=1)
    axes.set_xticks(range(len(groups)), groups)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.set_ylabel(unit)
    axes.set_ylim(0, 105)
    axes.set_title(title, fontsize=10, loc="left")
    if scores:
        columns = min(len(scores), 3) if len(groups) > 3 else 1  # as many names as fit in one line
        figure.legend(fontsize=7, frameon=False, ncols=columns, loc="outside lower left")
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def loss_curves(path: Path, curves: Mapping[str, Sequence[tuple[int, float]]], *, title: str) -> None:
    """Draw curves[name] = [(optimizer step, loss), ...], one panel per curve: losses of models share no scale."""
    figure, panels = plt.subplots(
        1, max(len(curves), 1), figsize=(3.2 * max(len(curves), 1), 2.6), layout="constrained", squeeze=False
    )
    for axes, (name, points), colour in zip(panels[0], curves.items(), COLOURS * len(curves), strict=False):
        axes.plot([step for step, _ in points], [loss for _, loss in points], color=colour, linewidth=1.2, marker=".")
        axes.set_title(name, fontsize=9, loc="left")
        axes.set_xlabel("optimizer step", fontsize=8)
        axes.set_ylabel("loss", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    _save(figure, path)


@dataclass(frozen=True)
class Line:
    """Points (x, y) in the order of x. colour: index of COLOURS, shared by related lines. dashed: published scores."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int
    dashed: bool = False


def line_chart(path: Path, lines: Sequence[Line], *, title: str, x: str, y: str) -> None:
    """Draw the lines in one panel; scores in percent, from 0 to 100."""
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for line in lines:
        axes.plot(
            [point[0] for point in line.points],
            [point[1] for point in line.points],
            label=line.name,
            color=COLOURS[line.colour % len(COLOURS)],
            linewidth=1.4,
            marker=".",
            linestyle="--" if line.dashed else "-",
            alpha=0.6 if line.dashed else 1,
        )
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.set_ylim(0, 105)
    axes.set_title(title, fontsize=10, loc="left")
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    if lines:
        figure.legend(fontsize=7, frameon=False, loc="outside right upper")
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # matplotlib's version in the file would make equal pictures differ
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})
    plt.close(figure)
