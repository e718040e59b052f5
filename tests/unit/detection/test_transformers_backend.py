"""Mask2Former and MaskFormer as detectors, on tiny models with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    DetrConfig,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    MaskFormerImageProcessor,
    PreTrainedModel,
    ResNetConfig,
    ResNetModel,
)

from diffground.detection.load import load_detector
from diffground.detection.transformers_backend import MaskQueryDetector, best_labels
from diffground.errors import UserError

CPU = torch.device("cpu")
NAMES = {0: "person", 1: "dog", 2: "cat"}
NUM_QUERIES = 7
SIZE = 384
"""px; to this size transformers' own post-processing brings every mask."""


def _backbone() -> ResNetConfig:
    return ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )


def _mask2former() -> Mask2FormerForUniversalSegmentation:
    return Mask2FormerForUniversalSegmentation(
        Mask2FormerConfig(
            backbone_config=_backbone(),
            feature_size=32,
            mask_feature_size=32,
            hidden_dim=32,
            num_attention_heads=2,
            encoder_feedforward_dim=16,
            encoder_layers=1,
            decoder_layers=2,
            dim_feedforward=16,
            num_queries=NUM_QUERIES,
            id2label=NAMES,
        )
    )


def _maskformer() -> MaskFormerForInstanceSegmentation:
    decoder = DetrConfig(
        backbone_config=_backbone(),
        num_queries=NUM_QUERIES,
        d_model=32,
        encoder_layers=0,
        decoder_layers=1,
        decoder_ffn_dim=16,
        encoder_ffn_dim=16,
        decoder_attention_heads=2,
        encoder_attention_heads=2,
    )
    return MaskFormerForInstanceSegmentation(
        MaskFormerConfig(
            backbone_config=_backbone(),
            decoder_config=decoder,
            fpn_feature_size=32,
            mask_feature_size=32,
            id2label=NAMES,
        )
    )


def _vary(model: PreTrainedModel) -> PreTrainedModel:
    """Random queries that differ: classes and masks then differ too."""
    for name, weight in model.named_parameters():
        if "queries" in name or name.startswith(("class_predictor", "mask_embedder")):
            torch.nn.init.normal_(weight, std=1.0 if "queries" in name else 0.4)
    return model


@pytest.fixture(scope="module", params=["mask2former", "maskformer"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp(request.param) / "model"
    if request.param == "mask2former":
        _vary(_mask2former()).save_pretrained(path)
        Mask2FormerImageProcessor(size={"shortest_edge": 64, "longest_edge": 128}).save_pretrained(path)
    else:
        _vary(_maskformer()).save_pretrained(path)
        MaskFormerImageProcessor(size={"shortest_edge": 64, "longest_edge": 128}).save_pretrained(path)
    return path


def _load(folder: Path | str, mask_threshold: float = 0.5) -> MaskQueryDetector:
    return MaskQueryDetector.load(str(folder), mask_threshold=mask_threshold, device=CPU)


def _images(num: int, height: int = 32, width: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, height, width, 3), dtype=np.uint8)


def test_instances_have_known_labels_the_image_s_size_and_come_best_first(folder: Path) -> None:
    detector = _load(folder)
    assert detector.labels == ("person", "dog", "cat")
    (found,) = detector.detect(_images(1, 40, 56))
    assert len(found.labels) > 1
    assert found.masks.shape == (len(found.labels), 40, 56) and found.masks.dtype == bool
    assert found.masks.any(axis=(1, 2)).all()
    assert set(found.labels) <= set(detector.labels)
    assert found.scores.dtype == np.float32
    assert (np.diff(found.scores) <= 0).all() and found.scores.min() >= 0 and found.scores.max() <= 1


def test_an_image_s_instances_do_not_depend_on_its_batch(folder: Path) -> None:
    detector, images = _load(folder), _images(4)
    together = detector.detect(images)
    assert len(together) == 4
    for i, found in enumerate(together):
        (alone,) = detector.detect(images[i : i + 1])
        assert found.labels == alone.labels
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-5)
        assert (found.masks != alone.masks).mean() < 1e-3


def test_a_higher_mask_threshold_gives_smaller_masks(folder: Path) -> None:
    low, high = (sum(f.masks.sum() for f in _load(folder, t).detect(_images(1))) for t in (0.3, 0.5))
    assert 0 < high < low


def test_padding_of_the_processor_leaves_the_mask_where_the_object_is() -> None:
    torch.manual_seed(0)
    model = _vary(_mask2former())
    sizes = {"size": {"height": 64, "width": 64}, "size_divisor": 32}
    plain, padded = (
        MaskQueryDetector(
            model, Mask2FormerImageProcessor(**sizes, **padding), label_names=NAMES, mask_threshold=0.5, device=CPU
        )
        for padding in ({}, {"pad_size": {"height": 64, "width": 128}})
    )
    image = _images(1, 64, 64)
    seen: list[torch.Tensor] = []
    # the same mask logits at both sizes: a gradient from left to right, in pixels of the network's input
    model.register_forward_hook(lambda _module, _inputs, outputs: _set_masks(outputs, seen))
    (expected,), (found,) = plain.detect(image), padded.detect(image)
    assert [tuple(s.shape) for s in seen] == [(1, NUM_QUERIES, 16, 16), (1, NUM_QUERIES, 16, 32)]
    assert expected.masks[0].sum() == found.masks[0].sum() == 64 * 24
    np.testing.assert_array_equal(expected.masks[0], found.masks[0])


def _set_masks(outputs: object, seen: list[torch.Tensor]) -> object:
    shape = outputs.masks_queries_logits.shape
    columns = 6.0 - 0.5 - torch.arange(shape[-1])  # 0 between columns 5 and 6 of stride 4: at pixel 24
    outputs.masks_queries_logits = columns.expand(shape).contiguous()
    seen.append(outputs.masks_queries_logits)
    return outputs


@pytest.mark.parametrize("seed", [0, 1])
def test_instances_are_those_of_transformers_own_postprocessing(seed: int) -> None:
    torch.manual_seed(seed)
    model = _vary(_mask2former())
    processor = Mask2FormerImageProcessor(size={"height": SIZE, "width": SIZE})
    detector = MaskQueryDetector(model, processor, label_names=NAMES, mask_threshold=0.5, device=CPU)
    images = _images(1, SIZE, SIZE)
    with torch.no_grad():
        outputs = model(**processor(images=list(images), return_tensors="pt"))
    (theirs,) = processor.post_process_instance_segmentation(
        outputs, threshold=0.0, target_sizes=[(SIZE, SIZE)], return_binary_maps=True
    )
    (ours,) = detector.detect(images)
    # theirs are in no order: by falling score
    order = sorted(range(len(theirs["segments_info"])), key=lambda i: -theirs["segments_info"][i]["score"])
    assert len(order) == len(ours.labels) > 1 and 0.01 < ours.masks.mean() < 0.99
    assert ours.labels == [NAMES[theirs["segments_info"][i]["label_id"]] for i in order]
    np.testing.assert_allclose(ours.scores, [theirs["segments_info"][i]["score"] for i in order], atol=2e-6)
    np.testing.assert_array_equal(ours.masks, theirs["segmentation"][order].numpy().astype(bool))


def test_the_likeliest_pairs_of_query_and_label_are_taken() -> None:
    # two queries, labels a and b, null: query 0 is a for sure or b, query 1 is nothing
    logits = torch.tensor([[5.0, 4.0, 0.0], [0.0, 0.0, 9.0]])
    labels, queries, probs = best_labels(logits)
    assert (labels.tolist(), queries.tolist()) == ([0, 1], [0, 0])
    torch.testing.assert_close(probs, logits[0].softmax(dim=0)[:2])


def test_the_backend_is_chosen_by_its_name(folder: Path) -> None:
    detector = load_detector(backend="transformers", checkpoint=str(folder), mask_threshold=0.5, device=CPU)
    assert detector.labels == ("person", "dog", "cat")


def _message(checkpoint: Path | str) -> str:
    with pytest.raises(UserError) as caught:
        _load(checkpoint)
    message = str(caught.value)
    assert message.startswith(f"detector.checkpoint '{checkpoint}'") and "\n" not in message
    return message


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert "no such folder" in _message(tmp_path / "nothing")


def test_pickled_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    for file in folder.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    assert "pickles are never loaded" in _message(tmp_path)


@pytest.mark.parametrize("damage", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_a_damaged_checkpoint_is_refused(folder: Path, tmp_path: Path, damage: str) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[: 50 if file.name == damage else None])
    assert "does not load as a transformers model" in _message(tmp_path)


def test_a_folder_without_image_processor_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert "has no preprocessor_config.json" in _message(tmp_path)


def test_another_kind_of_model_is_refused(folder: Path, tmp_path: Path) -> None:
    ResNetModel(_backbone()).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_bytes((folder / "preprocessor_config.json").read_bytes())
    assert "must be a mask2former or maskformer, got model type 'resnet'" in _message(tmp_path)


def test_a_checkpoint_without_its_heads_is_refused(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (_mask2former() if config["model_type"] == "mask2former" else _maskformer()).model.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "has no weights for" in _message(tmp_path)
