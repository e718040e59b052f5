"""Charts of scores and losses, as PNG files that are the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # no display; before pyplot is imported

import matplotlib.pyplot as plt

COLOURS = ("#2a6f97", "#e07a5f", "#a9a9a9", "#6a994e", "#f2cc8f", "#7b5ea7", "#5bc0be", "#4a4a4a")
_DPI = 120
_STYLE = {
    "axes.labelsize": 8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
}


def grouped_bars(path: Path, scores: Mapping[str, Mapping[str, float | None]], *, title: str, unit: str) -> None:
    """Draw scores[series][group] as bars in each group; the place of a missing score stays empty."""
    groups = list(dict.fromkeys(group for series in scores.values() for group in series))
    width = 0.8 / max(len(scores), 1)
    size = (1.6 + 1.3 * max(len(groups), 2), 3.4)
    with _chart(path, size, **{"axes.labelsize": 10, "xtick.labelsize": 10, "ytick.labelsize": 10}) as (figure, [axes]):
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
        axes.set_title(title)
        if scores:
            columns = min(len(scores), 2) if len(groups) > 3 else 1  # as many names as fit in one line
            figure.legend(ncols=columns, loc="outside lower left")


def loss_curves(path: Path, curves: Mapping[str, Sequence[tuple[int, float]]], *, title: str) -> None:
    """Draw curves[name] = [(optimizer step, loss), ...], one panel per curve: losses of models share no scale."""
    num = max(len(curves), 1)
    with _chart(path, (3.2 * num, 2.6), num_panels=num) as (figure, panels):
        for axes, (name, points), colour in zip(panels, curves.items(), COLOURS * len(curves), strict=False):
            axes.plot(
                [step for step, _ in points], [loss for _, loss in points], color=colour, linewidth=1.2, marker="."
            )
            axes.set_title(name, fontsize=9)
            axes.set_xlabel("optimizer step")
            axes.set_ylabel("loss")
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")


@dataclass(frozen=True)
class Line:
    """Points (x, y) in the order of x. colour: index of COLOURS, shared by related lines. dashed: published scores."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int
    dashed: bool = False


def line_chart(path: Path, lines: Sequence[Line], *, title: str, x: str, y: str) -> None:
    """Draw the lines in one panel; scores in percent, from 0 to 100."""
    with _chart(path, (6.4, 3.6)) as (figure, [axes]):
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
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.set_ylim(0, 105)
        axes.set_title(title)
        if lines:
            figure.legend(loc="outside right upper")


@contextmanager
def _chart(path: Path, size: tuple[float, float], *, num_panels: int = 1, **style: Any) -> Iterator[tuple[Any, Any]]:
    """A figure of `size` (inches) and its panels in a row; it is written at the end."""
    with plt.rc_context({**_STYLE, **style}):
        figure, panels = plt.subplots(1, num_panels, figsize=size, layout="constrained", squeeze=False)
        yield figure, panels[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        # matplotlib's version in the file would make equal pictures differ
        figure.savefig(path, dpi=_DPI, metadata={"Software": None})
        plt.close(figure)
