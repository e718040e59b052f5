import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffground.errors import UserError
from diffground.reproduction.metrics import flatten, read_metrics, round_metric, write_metrics


@pytest.mark.parametrize(
    ("value", "expected", "reason"),
    [
        (83.18749, 83.19, "percent, two decimals"),
        (1.0049, 1.0, "from 1 up, two decimals"),
        (0.0123456, 0.01235, "below 1, four significant digits"),
        (-12.345, -12.35, "the sign does not matter"),
        (0.0, 0.0, "zero stays"),
        (100.0, 100.0, "the upper end of a percentage"),
    ],
)
def test_rounds_percent_to_two_decimals_and_small_numbers_to_four_digits(value, expected, reason):
    assert round_metric(value) == pytest.approx(expected, abs=0.0051 if abs(value) > 10 else 1e-12), reason
    assert len(str(round_metric(value)).rsplit(".", 1)[-1]) <= 5


def test_writes_sorted_keys_and_reads_the_same_values_back(tmp_path):
    numbers = write_metrics("stage", {"b": {"y": 2.0, "x": None}, "a": [1, "dog", 0.5]}, folder=tmp_path)
    assert numbers == {"stage/b/y": 2.0}
    expected = {"a": [1, "dog", 0.5], "b": {"x": None, "y": 2.0}}
    assert (tmp_path / "stage.json").read_text() == json.dumps(expected, indent=2) + "\n"
    assert read_metrics("stage", folder=tmp_path) == expected
    assert [file.name for file in tmp_path.iterdir()] == ["stage.json"]


def test_takes_numpy_scalars(tmp_path):
    write_metrics("stage", {"loss": np.float32(0.25), "count": 3}, folder=tmp_path)
    assert read_metrics("stage", folder=tmp_path) == {"loss": 0.25, "count": 3}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_refuses_a_number_that_is_none(value, tmp_path):
    with pytest.raises(ValueError, match="stage/miou must be finite"):
        write_metrics("stage", {"miou": value}, folder=tmp_path)


def test_a_missing_file_names_the_stage_that_makes_it(tmp_path):
    with pytest.raises(UserError, match="run `dvc repro evaluate_zs3`"):
        read_metrics("evaluate_zs3", folder=tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_damaged_file_is_named(text, tmp_path):
    (tmp_path / "stage.json").write_text(text)
    with pytest.raises(UserError, match=r"stage\.json.*delete it and run `dvc repro stage`"):
        read_metrics("stage", folder=tmp_path)


def test_flatten_keeps_numbers_only():
    nested = {"a": {"b": 1, "c": None, "d": "text", "e": [1, 2]}, "f": 2.5, "g": True}
    assert flatten(nested) == {"a/b": 1.0, "f": 2.5}


@given(st.dictionaries(st.text(min_size=1), st.floats(0, 100) | st.integers(0, 10_000), max_size=5))
def test_writing_what_was_read_changes_nothing(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("metrics")
    write_metrics("stage", values, folder=folder)
    first = (folder / "stage.json").read_bytes()
    write_metrics("stage", read_metrics("stage", folder=folder), folder=folder)
    assert (folder / "stage.json").read_bytes() == first
