"""A saved module computes what it computed; what is no module is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from diffground.diffusion.sampling import Sampling
from diffground.errors import UserError
from diffground.grounding.checkpoint import GroundingSpec, load_grounding, save_grounding

SPEC = GroundingSpec(
    feature_channels={4: 8, 8: 6},
    text_dim=5,
    num_attention_maps=3,
    reduced_channels=(4, 8),
    embed_dim=8,
    num_layers=1,
    num_heads=2,
    ffn_dim=16,
    patch_size=2,
    tokens_at="features",
    branches="conditional",
    gain_timesteps=(500, 700),
    generator_id="abc",
    image_size=32,
    timestep=1,
    sampling=Sampling(3, 3.0, 1),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_grounding(tmp_path / "grounding", SPEC.build(), SPEC, card="# card\n")
    return tmp_path / "grounding"


def test_what_was_saved_is_loaded_frozen_and_computes_the_same(folder: Path) -> None:
    torch.manual_seed(0)
    module = SPEC.build().eval()
    loaded, spec = load_grounding(folder)
    assert spec == SPEC
    assert not loaded.training
    assert not any(weight.requires_grad for weight in loaded.parameters())
    inputs = ({4: torch.randn(1, 8, 4, 4), 8: torch.randn(1, 6, 8, 8)}, torch.randn(1, 2, 5), torch.rand(1, 2, 3, 8, 8))
    assert torch.equal(loaded(*inputs, image_size=16), module(*inputs, image_size=16))


def test_the_folder_holds_weights_config_and_card_and_nothing_else(folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named_with_the_stage_that_makes_it(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=rf"no grounding module \({name} is missing\); run `dvc repro train_grounding`"):
        load_grounding(folder)


def test_weights_of_other_sizes_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "ffn_dim": 20}))
    with pytest.raises(UserError, match="not a complete grounding module"):
        load_grounding(folder)


def test_truncated_weights_are_refused(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="not a complete grounding module"):
        load_grounding(folder)


def test_a_foreign_config_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match="not a complete grounding module"):
        load_grounding(folder)


def test_a_folder_from_before_there_were_two_architectures_loads(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("architecture") == "diffground"
    (folder / "config.json").write_text(json.dumps(config))
    assert load_grounding(folder)[1] == SPEC


def test_an_unknown_architecture_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architecture": "later"}))
    with pytest.raises(UserError, match="architecture must be one of diffground, released, got 'later'"):
        load_grounding(folder)
