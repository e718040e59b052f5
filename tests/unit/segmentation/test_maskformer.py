"""MaskFormer as a Segmenter: prediction, saving, loading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import MaskFormerImageProcessor

from diffground.errors import UserError
from diffground.segmentation.maskformer import MaskFormerSegmenter, build_maskformer, normalise, resize_image

CATEGORIES = ("red", "green", "blue")
CPU = torch.device("cpu")


def _segmenter(backbone: Path, **changed: int | str) -> MaskFormerSegmenter:
    torch.manual_seed(0)
    settings = {
        "matching": "bipartite",
        "hidden_dim": 32,
        "num_queries": 5,
        "decoder_layers": 2,
        "ffn_dim": 16,
        **changed,
    }
    model = build_maskformer(backbone=str(backbone), num_labels=4, **settings)
    return MaskFormerSegmenter(model, categories=CATEGORIES, image_size=64, device=CPU)


def _images(*sizes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def test_scores_have_every_label_and_each_image_s_own_size(backbone: Path) -> None:
    scores = _segmenter(backbone).predict(_images((32, 32), (20, 48)))
    assert [s.shape for s in scores] == [(4, 32, 32), (4, 20, 48)]
    assert all(s.dtype == np.float32 and (s >= 0).all() for s in scores)


def test_labels_are_those_of_transformers_own_postprocessing(backbone: Path) -> None:
    segmenter = _segmenter(backbone)
    (image,) = _images((384, 384))
    with torch.no_grad():
        outputs = segmenter.model.eval()(pixel_values=normalise(resize_image(image, 64))[None])
    theirs = MaskFormerImageProcessor().post_process_semantic_segmentation(outputs, target_sizes=[(384, 384)])[0]
    # transformers upsamples mask logits to 384 px, then takes labels; ours does the same to the image's own size
    (ours,) = segmenter.predict([image])
    np.testing.assert_array_equal(ours.argmax(axis=0), theirs.numpy())


def test_an_image_s_scores_do_not_depend_on_its_batch(backbone: Path) -> None:
    segmenter = _segmenter(backbone)
    images = _images((32, 32), (32, 32), (24, 40))
    together = segmenter.predict(images)
    for image, scores in zip(images, together, strict=True):
        np.testing.assert_allclose(segmenter.predict([image])[0], scores, atol=1e-5)


def test_what_is_saved_is_loaded(backbone: Path, tmp_path: Path) -> None:
    segmenter = _segmenter(backbone)
    segmenter.save(tmp_path / "segmenter", card="# card\n")
    loaded = MaskFormerSegmenter.load(tmp_path / "segmenter", device=CPU)
    assert loaded.categories == CATEGORIES
    images = _images((32, 32))
    np.testing.assert_array_equal(loaded.predict(images)[0], segmenter.predict(images)[0])
    assert sorted(p.name for p in (tmp_path / "segmenter").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_saving_twice_gives_the_same_bytes(backbone: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        _segmenter(backbone).save(tmp_path / name, card="# card\n")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_backbone_s_pretrained_weights_are_used(backbone: Path) -> None:
    encoder = _segmenter(backbone).model.model.pixel_level_module.encoder
    saved = load_file(backbone / "model.safetensors")
    assert saved
    for name, tensor in encoder.state_dict().items():
        torch.testing.assert_close(tensor, saved[name].to(tensor.dtype))


def test_a_width_that_group_norm_cannot_divide_is_refused(backbone: Path) -> None:
    with pytest.raises(UserError, match=r"segmenter\.hidden_dim must be a multiple of 32.*got 48"):
        _segmenter(backbone, hidden_dim=48)


def test_an_image_size_that_leaves_one_pixel_is_refused(backbone: Path) -> None:
    model = _segmenter(backbone).model
    with pytest.raises(UserError, match=r"segmenter\.image_size must be at least 64 px, got 32"):
        MaskFormerSegmenter(model, categories=CATEGORIES, image_size=32, device=CPU)


def test_a_missing_backbone_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        _segmenter(tmp_path / "none")


def test_a_pickled_backbone_is_refused(tmp_path: Path, backbone: Path) -> None:
    (tmp_path / "config.json").write_text((backbone / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    with pytest.raises(UserError, match=r"has no model\.safetensors \(pickles are never loaded\)"):
        _segmenter(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "truncated", "no json"])
def test_a_damaged_segmenter_is_refused_in_one_line(backbone: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "segmenter"
    _segmenter(backbone).save(folder, card="")
    weights = folder / "model.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:500])
    else:
        (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="train_maskformer") as caught:
        MaskFormerSegmenter.load(folder, device=CPU)
    assert "\n" not in str(caught.value)
