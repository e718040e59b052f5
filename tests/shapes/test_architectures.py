"""The whole method on the structures of Stable Diffusion 2.x and XL, with few channels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from diffground.detection.small_mask_rcnn import build_small_mask_rcnn
from diffground.detection.torchvision_backend import MaskRcnnDetector
from diffground.diffusion.generator import Generator
from diffground.grounding.fusion import Fusion
from diffground.reproduction.smoke import build_backbone
from tests.shapes.method import CATEGORIES, CPU, favour, paper_params, recorded_shapes, run_method
from tests.unit.diffusion.architectures import IMAGE_SIZE, build_sd2, build_sdxl


def build_detector() -> MaskRcnnDetector:
    torch.manual_seed(0)
    model = build_small_mask_rcnn(
        num_categories=2,
        image_size=IMAGE_SIZE,
        embedding_size=8,
        hidden_sizes=[8, 8, 16],
        depths=[1, 1, 1],
        fpn_channels=8,
        anchor_sizes=[[16], [32]],
        anchor_ratios=[1.0],
        box_head_dim=16,
        mask_head_channels=8,
        mask_head_layers=1,
        score_threshold=0.0,
        max_instances=20,
    )
    favour(model, [1, 2])
    return MaskRcnnDetector(model, category_names=["background", *CATEGORIES], mask_threshold=0.5, device=CPU)


@pytest.mark.parametrize(
    ("build", "reduced_channels", "text_dim"),
    # XL has three feature sizes, and the states of two text encoders
    [(build_sd2, [4, 4, 8, 16], 16), (build_sdxl, [4, 8, 16], 16 + 24)],
    ids=["2.x", "XL"],
)
@pytest.mark.parametrize(("tokens_at", "num_tokens"), [("features", 4 * 4), ("image", 32 * 32)])
def test_the_method_runs_on_it(
    build: Callable[[], DiffusionPipeline],
    reduced_channels: list[int],
    text_dim: int,
    tokens_at: str,
    num_tokens: int,
    tmp_path: Path,
) -> None:
    build().save_pretrained(tmp_path / "pipeline")
    build_backbone().save_pretrained(tmp_path / "backbone")
    generator = Generator.load(str(tmp_path / "pipeline"), device=CPU, dtype=torch.float32, image_size=IMAGE_SIZE)
    params = paper_params(
        tmp_path,
        f"generator.image_size={IMAGE_SIZE}",
        f"grounding.reduced_channels={reduced_channels}",
        f"grounding.tokens_at={tokens_at}",
        "grounding.embed_dim=32",
        "grounding.ffn_dim=32",
        "grounding.batch_size=2",
        f"segmenter.backbone={tmp_path / 'backbone'}",
        "segmenter.image_size=64",
        "segmenter.hidden_dim=32",
        "segmenter.num_queries=5",
        "segmenter.decoder_layers=2",
        "segmenter.ffn_dim=16",
        "segmenter.batch_size=2",
    )
    with recorded_shapes(Fusion) as shapes:
        run = run_method(generator, detector=build_detector(), params=params, folder=tmp_path / "data")
    dim, num_words = sum(reduced_channels), len(CATEGORIES)
    assert shapes["Fusion"] == [
        ((n, num_words, text_dim), (n, num_tokens, 16 * dim), (n, num_words, dim))
        for n in (params.grounding.batch_size, 1)
    ]
    assert set(run.sample.masks()) == set(CATEGORIES)
    assert np.isfinite([*run.fitted.curve.losses, run.segmenter_loss]).all()
    assert run.label.shape == run.image.shape[:2] == (IMAGE_SIZE, IMAGE_SIZE)
    (scores,) = run.segmenter.predict([run.image])
    assert scores.shape == (21, IMAGE_SIZE, IMAGE_SIZE)
