"""Training a tiny MaskFormer: it learns, it repeats itself, and ignored pixels have no influence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diffground.errors import UserError
from diffground.segmentation.augmentation import apply_views, draw_views
from diffground.segmentation.maskformer import MaskFormerSegmenter, build_maskformer
from diffground.segmentation.sources import SegmentationSource, WithoutLabels
from diffground.segmentation.train import ResizedSource, predictions_by_layer, segmentation_loss, train_segmenter

CATEGORIES = ("red", "green", "blue")
Pictures = list[tuple[np.ndarray, np.ndarray]]


def _segmenter(backbone: Path, matching: str = "bipartite") -> MaskFormerSegmenter:
    torch.manual_seed(0)
    model = build_maskformer(
        backbone=str(backbone),
        num_labels=4,
        matching=matching,
        hidden_dim=32,
        num_queries=6,
        decoder_layers=2,
        ffn_dim=32,
    )
    return MaskFormerSegmenter(model, categories=CATEGORIES, image_size=64, device=torch.device("cpu"))


def _train(segmenter: MaskFormerSegmenter, source: SegmentationSource, iterations: int) -> MaskFormerSegmenter:
    train_segmenter(
        segmenter, source, iterations=iterations, batch_size=4, learning_rate=2e-3, weight_decay=1e-4, seed=3
    )
    return segmenter


def _weights(segmenter: MaskFormerSegmenter) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in segmenter.model.state_dict().items()}


def test_it_learns_the_colours_of_squares(backbone: Path, pictures: Pictures) -> None:
    segmenter = _segmenter(backbone, matching="fixed")
    train_segmenter(segmenter, pictures, iterations=120, batch_size=8, learning_rate=5e-3, weight_decay=1e-4, seed=3)
    predictions = segmenter.predict([image for image, _ in pictures])
    right = [(p.argmax(axis=0) == label)[label > 0].mean() for p, (_, label) in zip(predictions, pictures, strict=True)]
    assert len(right) == 12 and np.mean(right) > 0.7, right


def test_with_fixed_matching_each_label_has_its_query(backbone: Path) -> None:
    model = _segmenter(backbone, matching="fixed").model
    assert model.config.decoder_config.num_queries == 4  # background and three categories
    labels = [torch.tensor([0, 2]), torch.tensor([3])]
    (first, places), (second, _) = model.criterion.matcher(torch.zeros(0), torch.zeros(0), [], labels)
    assert first.tolist() == [0, 2] and places.tolist() == [0, 1] and second.tolist() == [3]


def test_the_same_seed_gives_the_same_weights(backbone: Path, pictures: Pictures) -> None:
    first, second = (_weights(_train(_segmenter(backbone), pictures, 3)) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_backbone_with_factor_0_keeps_its_weights(backbone: Path, pictures: Pictures) -> None:
    segmenter = _segmenter(backbone)
    before = _weights(segmenter)
    train_segmenter(
        segmenter,
        pictures,
        iterations=3,
        batch_size=4,
        learning_rate=2e-3,
        backbone_lr_factor=0,
        weight_decay=0,
        seed=3,
    )
    moved = {
        name for name, _ in segmenter.model.named_parameters() if not _weights(segmenter)[name].equal(before[name])
    }
    assert moved and not any(".encoder." in name for name in moved if "pixel_level_module" in name)


def test_hidden_labels_are_never_read(backbone: Path, pictures: Pictures) -> None:
    """Poison: labels 2 and 3 swapped, and moved about inside the hidden pixels. Nothing may change."""
    rng = np.random.default_rng(1)
    poisoned = []
    for image, label in pictures:
        hidden = label >= 2
        other = label.copy()
        other[hidden] = rng.integers(2, 4, int(hidden.sum()))
        poisoned.append((image, other))
    assert any((a[1] != b[1]).any() for a, b in zip(pictures, poisoned, strict=True))
    clean = _weights(_train(_segmenter(backbone), WithoutLabels(pictures, hidden=[2, 3]), 3))
    dirty = _weights(_train(_segmenter(backbone), WithoutLabels(poisoned, hidden=[2, 3]), 3))
    assert all(torch.equal(clean[name], dirty[name]) for name in clean)
    seeing = _weights(_train(_segmenter(backbone), pictures, 3))
    assert any(not torch.equal(clean[name], seeing[name]) for name in clean)


def test_hiding_leaves_the_source_as_it_was(pictures: Pictures) -> None:
    before = [label.copy() for _, label in pictures]
    source = WithoutLabels(pictures, hidden=[3])
    labels = [source[i][1] for i in range(len(source))]
    assert set(np.unique(labels)) == {0, 1, 2, 255}
    assert all((label == old).all() for (_, label), old in zip(pictures, before, strict=True))


def test_masks_get_no_gradient_where_the_label_is_ignored(backbone: Path, pictures: Pictures) -> None:
    segmenter = _segmenter(backbone)
    segmenter.model.eval()
    images, labels = ResizedSource(pictures, image_size=64).batch([0, 1])
    labels[:, :, 32:] = 255
    kept: list[torch.Tensor] = []
    decoder = segmenter.model.model.pixel_level_module.decoder

    def keep(_module: object, _inputs: object, output: object) -> None:
        embeddings = output[0]  # type: ignore[index]
        embeddings.retain_grad()
        kept.append(embeddings)

    with_hook = decoder.register_forward_hook(keep)
    segmentation_loss(segmenter.model, images, labels).backward()
    with_hook.remove()
    gradient = kept[0].grad
    assert gradient is not None and gradient.shape[-1] == 16  # stride 4
    assert gradient[..., :8].abs().sum() > 0
    assert gradient[..., 9:].abs().sum() == 0  # column 8 is read by bilinear upsampling at the border


def test_with_all_labels_the_loss_is_that_of_transformers(backbone: Path, pictures: Pictures) -> None:
    segmenter = _segmenter(backbone)
    model = segmenter.model.eval()
    images, labels = ResizedSource(pictures, image_size=64).batch([0, 1, 2])
    half = labels[:, ::2, ::2]
    classes = [torch.unique(label).long() for label in half]
    masks = [(label[None] == of[:, None, None]).float() for label, of in zip(half, classes, strict=True)]
    ours = segmentation_loss(model, images, labels)
    theirs = torch.zeros(())
    for mask_logits, class_logits in predictions_by_layer(model, images):
        mask_logits = torch.nn.functional.interpolate(mask_logits, size=(32, 32), mode="bilinear", align_corners=False)
        theirs = theirs + model.get_loss(model.get_loss_dict(mask_logits, class_logits, masks, classes, None))
    torch.testing.assert_close(ours, theirs)


def test_every_decoder_layer_predicts_and_the_last_comes_first(backbone: Path, pictures: Pictures) -> None:
    segmenter = _segmenter(backbone)
    model = segmenter.model.eval()
    images, _ = ResizedSource(pictures, image_size=64).batch([0])
    predictions = predictions_by_layer(model, images)
    outputs = model(pixel_values=(images - 0.5) / 0.25)
    assert len(predictions) == 2
    torch.testing.assert_close(predictions[0][0], outputs.masks_queries_logits)
    assert not torch.allclose(predictions[1][0], predictions[0][0])


def test_an_image_without_any_label_is_no_error(backbone: Path, pictures: Pictures) -> None:
    segmenter = _segmenter(backbone)
    images, labels = ResizedSource(pictures, image_size=64).batch([0, 1])
    labels[0] = 255
    assert torch.isfinite(segmentation_loss(segmenter.model, images, labels))


def test_an_empty_source_is_refused(backbone: Path) -> None:
    with pytest.raises(UserError, match="no training image"):
        _train(_segmenter(backbone), [], 1)


def test_views_move_image_and_label_together() -> None:
    label = torch.zeros(8, 32, 32, dtype=torch.uint8)
    label[:, 8:20, 6:18] = 5
    images = (label == 5)[:, None].float().expand(-1, 3, -1, -1)
    views, labels = apply_views(images, label, draw_views(len(images), torch.Generator().manual_seed(0)))
    assert views.shape == (8, 3, 32, 32) and set(labels.unique().tolist()) <= {0, 5, 255}
    assert (labels == 5).sum() > 0 and (labels == 255).sum() > 0
    for view, moved in zip(views, labels, strict=True):
        inside, outside = view.mean(dim=0)[moved == 5], view.mean(dim=0)[moved == 0]
        if len(inside) and len(outside):
            assert inside.mean() > outside.mean() + 0.2


def test_what_does_not_fit_into_memory_is_read_again(pictures: Pictures) -> None:
    class Counted:
        def __init__(self) -> None:
            self.reads: list[int] = []

        def __len__(self) -> int:
            return len(pictures)

        def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
            self.reads.append(i)
            return pictures[i]

    num_bytes = 32 * 32 * (3 * 4 + 1)
    kept, none = Counted(), Counted()
    two = ResizedSource(kept, image_size=32, max_cache_bytes=2 * num_bytes)
    expected = ResizedSource(none, image_size=32, max_cache_bytes=0)
    for _ in range(2):
        for actual, wanted in zip(two.batch([0, 1, 2]), expected.batch([0, 1, 2]), strict=True):
            assert torch.equal(actual, wanted)
    assert kept.reads == [0, 1, 2, 2]
    assert none.reads == [0, 1, 2, 0, 1, 2]
