"""The six numbers at the top of the page, each with its spread over seeds where it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffground.report.html import Tile
from diffground.report.spread import DEFAULT_MODULE, MODULES
from diffground.report.tables import GROUP_TITLES, TRAINING_TITLES, ZS3_TITLES, Table, format_cell, score_of

_UNSEEN_GROUPS = ("one_unseen", "two_unseen")
_ONE_RUN = "one run"


def headline(metrics: Mapping[str, Mapping[str, Any]], tables: Mapping[str, Table]) -> list[Tile]:
    """Masks of unseen categories, DAAM's at its best, and the segmenter trained on synthetic images (else the first).

    metrics: of the default run, evaluate_grounding and evaluate_zs3. tables: those of the page; 'spread_protocol1' and
    'spread_zs3' give mean and standard deviation, without them the scores are of one run.
    """
    protocol1, zs3 = metrics["evaluate_grounding"], metrics["evaluate_zs3"]
    tiles = []
    for group in _UNSEEN_GROUPS:
        spread = _spread(tables.get("spread_protocol1"), MODULES[DEFAULT_MODULE], GROUP_TITLES[group])
        score, runs = spread or (_percent(protocol1["grounding"], group), _ONE_RUN)
        tiles.append(Tile(f"Masks of generated images, {GROUP_TITLES[group]}", score, runs, "mIoU, %"))
    daam: Mapping[str, Any] = next((protocol1[name] for name in ("daam_best", "daam") if name in protocol1), {})
    best = ", layers and thresholds fitted" if "daam_best" in protocol1 else ""
    scores = " / ".join(_percent(daam, group) for group in _UNSEEN_GROUPS)
    titles = " / ".join(GROUP_TITLES[group] for group in _UNSEEN_GROUPS)
    tiles.append(Tile(f"The same by DAAM{best}: {titles}", scores, "no training", "mIoU, %"))
    trained = next(name for name in TRAINING_TITLES if name in zs3)
    upper = zs3.get("real_all", {}) if trained != "real_all" else {}
    for key, title in ZS3_TITLES.items():
        of_trained, of_upper = (
            _spread(tables.get("spread_zs3"), TRAINING_TITLES[name], title) for name in (trained, "real_all")
        )
        score, runs = of_trained or (_percent(zs3[trained], key), _ONE_RUN)
        bound, _ = of_upper or (_percent(upper, key), _ONE_RUN)
        reference = f"upper bound, trained on labelled real images: {bound}" if upper else "mIoU, %"
        tiles.append(Tile(f"Segmenter trained on {TRAINING_TITLES[trained]}: {title}", score, runs, reference))
    return tiles


def _spread(table: Table | None, row_title: str, column: str) -> tuple[str, str] | None:
    """ "48.2 ± 1.8" and "3 seeds"; None where that row was run once or not at all."""
    if table is None or column not in table.header:
        return None
    for title, *cells in table.rows:
        *scores, num_seeds = cells
        score = scores[table.header.index(column) - 1]
        if title == row_title and isinstance(num_seeds, int | float) and num_seeds > 1 and score is not None:
            return str(score), f"mean ± standard deviation of {num_seeds} seeds"
    return None


def _percent(scores: Mapping[str, Any], key: str) -> str:
    return format_cell(score_of(scores, key))
