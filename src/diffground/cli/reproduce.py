"""`diffground reproduce`: the whole pipeline, with an overview before, during and after it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from diffground.cli.links import links
from diffground.errors import UserError
from diffground.prompts import GROUPS
from diffground.report.tables import GROUP_TITLES, ZS3_TITLES, format_cell, score_of
from diffground.reproduction import paths
from diffground.reproduction.commands import DVC, check_dvc_is_idle
from diffground.reproduction.config import load_params
from diffground.reproduction.metrics import read_metrics
from diffground.reproduction.overview import COMMITTED_TIMES, begin, read_times, stage_names
from diffground.reproduction.recovery import recover
from diffground.reproduction.without_git import let_dvc_work_without_git


def reproduce() -> None:
    """Run `dvc repro`, then print where the results are.

    Works in a folder without git too, see let_dvc_work_without_git.
    Raises: UserError when a stage failed, and while another DVC command is running.
    """
    check_dvc_is_idle(Path())
    for line in [*let_dvc_work_without_git(), *recover()]:
        print(line)
    print("\n".join(_plan()), flush=True)
    code = subprocess.run([*DVC, "repro"], env={**os.environ, **begin()}, check=False).returncode
    if code:
        raise UserError("a stage failed, see above; run the same command again to resume")
    print("\n".join(_summary()))


def _plan() -> list[str]:
    times = read_times(COMMITTED_TIMES)
    lines = [f"{len(stage_names())} stages; those that are up to date are skipped."]
    if times:
        longest = sorted(times, key=lambda name: -times[name])[:5]
        parts = ", ".join(f"{name} {times[name] / 60:.1f}" for name in longest)
        lines.append(f"All of them took {sum(times.values()) / 60:.0f} min in the committed run, in minutes: {parts}.")
    return [*lines, "You can stop at any time (Ctrl-C); the same command resumes."]


def _summary() -> list[str]:
    """The main scores, and where everything else is."""
    masks, segmenter = read_metrics("evaluate_grounding")["grounding"], read_metrics("evaluate_zs3").get("synthetic")
    lines = [f"mIoU of grounded masks, %: {_listed(masks, {group: GROUP_TITLES[group] for group in GROUPS})}"]
    if segmenter is not None:
        lines.append(f"mIoU of the segmenter on real images, %: {_listed(segmenter, ZS3_TITLES)}")
    return [
        *lines,
        f"models: {paths.GROUNDING_MODEL}, {paths.SEGMENTERS}",
        *links(load_params(paths.PARAMS).tracking),
    ]


def _listed(scores: dict[str, float | None], titles: Mapping[str, str]) -> str:
    return ", ".join(f"{title} {format_cell(score_of(scores, key))}" for key, title in titles.items())
