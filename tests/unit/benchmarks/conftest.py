"""Profile smoke with its tiny components, for benchmarks of the library."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffground.reproduction.composition import compose_params
from diffground.reproduction.config import Params, load_params
from diffground.reproduction.smoke import build_components

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def smoke_params(tmp_path_factory: pytest.TempPathFactory) -> Params:
    folder = tmp_path_factory.mktemp("smoke")
    build_components(folder / "models")
    overrides = [
        f"generator.checkpoint={folder}/models/diffusion",
        f"detector.checkpoint={folder}/models/detector",
        f"segmenter.backbone={folder}/models/backbone",
        "grounding.gain_timesteps=[499, 699]",
        "daam.batch_size=4",
        # the random detector finds something of each category, so that samples are judged
        "detector.score_threshold=0.05",
    ]
    text = compose_params("smoke", conf=ROOT / "conf", overrides=overrides)
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    return load_params(folder / "params.yaml")
