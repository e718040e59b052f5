"""Counts of quality per category, worked by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from diffground.cli.main import main
from diffground.data.labelled import image_sample
from diffground.data.shards import write_shard
from diffground.errors import UserError
from diffground.exchange.quality import QualityCount, count_quality

SAMPLES = [(("dog",), 0.9), (("dog", "cat"), 0.4), (("dog",), 0.5), (("cat",), 0.3)]
"""Categories and quality."""


def write(folder: Path, samples: list[tuple[tuple[str, ...], float | None]]) -> Path:
    folder.mkdir()
    write_shard(
        folder / "000000.tar",
        (
            image_sample(
                id=f"s{i}",
                prompt="a photograph",
                categories=categories,
                settings={},
                image=np.zeros((2, 2, 3), dtype=np.uint8),
                label=np.zeros((2, 2), dtype=np.uint8),
                quality=quality,
            )
            for i, (categories, quality) in enumerate(samples)
        ),
    )
    return folder


def test_a_sample_counts_for_each_category_of_its_prompt(tmp_path: Path) -> None:
    together, by_category = count_quality(write(tmp_path / "shards", SAMPLES), min_quality=0.5)
    assert together == QualityCount(num_images=4, mean_quality=pytest.approx(0.525), num_below=2)
    assert list(by_category) == ["cat", "dog"]
    assert by_category["cat"] == QualityCount(num_images=2, mean_quality=pytest.approx(0.35), num_below=2)
    assert by_category["dog"] == QualityCount(num_images=3, mean_quality=pytest.approx(0.6), num_below=1)


@pytest.mark.parametrize(
    ("num_images", "num_below", "expected"),
    [(3, 1, 2), (100, 0, 0), (10, 5, 10), (100, 99, 9900), (2, 2, None)],  # 2 more of which 2/3 are kept: 1.33, one
)
def test_prompts_that_fill_the_gap(num_images: int, num_below: int, expected: int | None) -> None:
    assert QualityCount(num_images, 0.5, num_below).num_to_fill == expected


def test_the_command_prints_a_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = write(tmp_path / "shards", SAMPLES)
    for extra in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            main(["quality", str(shards), "--min-quality", "0.5", *extra])
        assert ended.value.code == 0
    lines, _, found = capsys.readouterr().out.partition("{")
    assert [line.split() for line in lines.splitlines()[1:4]] == [
        ["cat", "2", "0.350", "2", "(100%)", "none", "is", "kept"],
        ["dog", "3", "0.600", "1", "(33%)", "2"],
        ["all", "4", "0.525", "2", "(50%)", "4"],
    ]
    assert json.loads("{" + found)["categories"]["dog"]["num_to_fill"] == 2


@pytest.mark.parametrize(
    ("samples", "limit", "message"),
    [
        ([(("dog",), None)], 0.5, "sample 's0' has no quality"),
        (SAMPLES, 1.5, "--min-quality must be in 0..1, got 1.5"),
        ([], 0.5, "holds no sample"),
    ],
)
def test_what_cannot_be_counted_is_one_line(tmp_path: Path, samples: list, limit: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        count_quality(write(tmp_path / "shards", samples), min_quality=limit)
