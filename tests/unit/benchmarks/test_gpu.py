"""benchmarks/gpu.py at tiny size on the processor, with no package but those of the GPU machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import COLUMNS, MODELS, as_table, paper_module
from tests.without_packages import RUN_WITHOUT

ROOT = Path(__file__).parents[3]
ABSENT = "dvc,hydra,jinja2,matplotlib,mlflow,omegaconf,prefect,pycocotools,pydantic"
"""Packages that the library or its command line use and that are not on the GPU machine."""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("gpu") / "gpu"
    command = [ROOT / "benchmarks/gpu.py", "--tiny", "--device", "cpu", "--out", out]
    # elsewhere, and with no path to the library: the script finds its clone by itself
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-c", RUN_WITHOUT, ABSENT, *map(str, command)], cwd=out.parent, env=environment, check=True
    )
    return json.loads(out.with_suffix(".json").read_text()), out.with_suffix(".md").read_text()


def test_both_models_are_measured_with_every_ratio(results):
    found, _ = results
    assert set(found["models"]) == set(MODELS)
    for of_model in found["models"].values():
        assert set(of_model["ratios"]) == set(COLUMNS)
        assert all(seconds > 0 for seconds in of_model["times_s"].values())
        assert len(of_model["times_s"]) == 7
        assert of_model["batch_size"] in (1, 2) and 1 <= of_model["repeats"] <= 3
        assert of_model["search"]["ended_by"] in ("largest size", "no gain")
        assert of_model["peak_memory_gib"] > 0.1


def test_the_machine_and_the_size_are_recorded(results):
    found, text = results
    assert found["tiny"] and found["machine"]["device"] == "processor only"
    assert {"torch", "diffusers", "transformers"} <= set(found["machine"]["versions"])
    assert "(--tiny)" in text.splitlines()[0]
    assert "not measured" not in text


def test_a_model_without_a_result_is_not_measured():
    rows = as_table({"sdxl": {"batch_size": 8}}).rows
    assert [row[0] for row in rows] == list(MODELS.values())
    assert set(rows[0][1:]) == {"not measured"}
    assert rows[1][1] == "8" and set(rows[1][2:]) == {"not measured"}


def test_the_module_is_that_of_the_paper_with_a_width_per_feature_size():
    assert paper_module(4).reduced_channels == (16, 32, 64, 128)
    assert paper_module(3).reduced_channels == (32, 64, 128)
    assert not paper_module(3).word_attention


def test_without_a_gpu_it_says_so_and_what_to_give():
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/gpu.py"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == "error: --device cuda: torch sees no GPU; give --device cpu with --tiny\n"
