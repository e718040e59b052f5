"""Optimizer steps: like a plain loop, however many parts and processes share a batch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import toy_trainings as toy
from torch import nn

from diffground.errors import UserError
from diffground.grounding.loss import grounding_loss, judged_queries
from diffground.grounding.queries import add_noise, keep_text, stack_queries
from diffground.grounding.train import stack_masks
from diffground.runtime.processes import run_in_processes
from diffground.segmentation.augmentation import apply_views, draw_views
from diffground.segmentation.train import ResizedSource, count_targets, predictions_by_layer, segmentation_loss
from diffground.training.loop import Execution

CLOSE = {"rtol": 1e-3, "atol": 2e-5}  # Adam divides by roots of small numbers


def assert_equal(one, other):
    assert one.keys() == other.keys() and len(one) > 10
    assert all(torch.equal(one[name], other[name]) for name in one)


def assert_close(one, other):
    assert one.keys() == other.keys() and len(one) > 10
    for name in one:
        torch.testing.assert_close(one[name], other[name], **CLOSE, msg=lambda text, name=name: f"{name}: {text}")


def order(num_samples, batch_size, generator):
    queue = []
    while True:
        while len(queue) < batch_size:
            queue += torch.randperm(num_samples, generator=generator).tolist()
        yield queue[:batch_size]
        queue = queue[batch_size:]


def plain_grounding():
    """The training of the module as a plain loop."""
    p, module, data = toy.GROUNDING, toy.toy_module(), toy.toy_data()
    module.to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(p["seed"])
    vectors = torch.stack(list(data.embeddings.values()))
    optimizer = torch.optim.Adam(module.parameters(), lr=p["learning_rate"], weight_decay=p["weight_decay"], fused=True)
    batches, losses = order(len(data.samples), p["batch_size"], generator), []
    module.train()
    for iteration in range(p["iterations"]):
        remaining = (p["iterations"] - iteration) / p["iterations"]
        optimizer.param_groups[0]["lr"] = p["learning_rate"] * min(1.0, remaining / p["decay_frac"])
        chosen = next(batches)
        words = [data.samples[i].categories for i in chosen]
        text, exists = stack_queries(words, data.embeddings)
        scale = float(vectors.std(dim=0).mean())
        text = add_noise(text, noise=p["query_noise"], scale=scale, generator=generator)
        text_kept = keep_text(exists, drop_frac=p["text_drop"], generator=generator)
        masks, found = stack_masks(
            [data.samples[i].masks() for i in chosen], words, data.image_size, max(map(len, words))
        )
        features = data.features.batch(chosen)
        logits = module(
            features.maps,
            text,
            features.attention[:, : text.shape[1]],
            image_size=data.image_size,
            exists=exists,
            text_kept=text_kept,
        )
        judged = judged_queries(exists=exists, found=found, training_type=p["training_type"])
        loss = grounding_loss(logits, masks, judged=judged)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return module.state_dict(), float(torch.stack(losses).mean())


def plain_maskformer(backbone):
    """The training of the segmenter as a plain loop, with transformers' own loss."""
    p, pictures = toy.SEGMENTER, toy.toy_pictures()
    model = toy.toy_segmenter(backbone).model
    generator = torch.Generator().manual_seed(p["seed"])
    backbone_weights = list(model.model.pixel_level_module.encoder.parameters())
    names = {id(weight) for weight in backbone_weights}
    heads = [weight for weight in model.parameters() if id(weight) not in names]
    optimizer = torch.optim.AdamW(
        [{"params": heads}, {"params": backbone_weights}],
        lr=p["learning_rate"],
        weight_decay=p["weight_decay"],
        fused=True,
    )
    batches, losses = order(len(pictures), p["batch_size"], generator), []
    model.train()
    torch.manual_seed(p["seed"])
    for iteration in range(1, p["iterations"] + 1):
        rate = p["learning_rate"] * min(1.0, iteration / 50) * (1 - (iteration - 1) / p["iterations"]) ** 0.9
        optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = rate, p["backbone_lr_factor"] * rate
        images, labels = ResizedSource(pictures, image_size=64).batch(next(batches))
        images, labels = apply_views(images, labels, draw_views(len(images), generator))
        scored = labels[:, ::2, ::2]
        classes = [torch.unique(label[label != 255]).long() for label in scored]
        masks = [(label[None] == of[:, None, None]).float() for label, of in zip(scored, classes, strict=True)]
        loss = torch.zeros(())
        for mask_logits, class_logits in predictions_by_layer(model, images):
            mask_logits = F.interpolate(mask_logits, size=(32, 32), mode="bilinear", align_corners=False)
            mask_logits = mask_logits.masked_fill((scored == 255)[:, None], -100.0)
            loss = loss + model.get_loss(model.get_loss_dict(mask_logits, class_logits, masks, classes, None))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
    return model.state_dict(), float(torch.stack(losses).mean())


def test_one_process_without_parts_is_the_plain_loop_bit_by_bit(backbone):
    for (weights, loss), (model, curve) in (
        (plain_grounding(), toy.train_grounding(None)),
        (plain_maskformer(backbone), toy.train_maskformer(None, backbone)),
    ):
        assert_equal(weights, model.state_dict())
        assert curve.losses == [loss]


def test_two_parts_of_unequally_many_found_objects_give_the_loss_and_the_weights_of_the_whole(backbone):
    data = toy.toy_data()
    nums = [len(sample.masks()) for sample in data.samples]
    assert 0 in nums and 2 in nums
    for train, arguments in (
        (toy.train_grounding, {"without_batch_norm": True}),
        (toy.train_maskformer, {"backbone": backbone, "frozen_batch_norm": True, "dropout": False}),
    ):
        whole, curve = train(Execution(), **arguments)
        parts, curve_of_parts = train(Execution(accumulation_steps=2), **arguments)
        assert_close(whole.state_dict(), parts.state_dict())
        np.testing.assert_allclose(curve.losses, curve_of_parts.losses, rtol=1e-5)


def test_batch_norm_sees_one_part_of_a_batch():
    whole, _ = toy.train_grounding(Execution(), iterations=1)
    parts, _ = toy.train_grounding(Execution(accumulation_steps=2), iterations=1)
    norm = whole.visual_encoder.mixers[0].norm1
    assert norm.num_batches_tracked == 1
    assert parts.visual_encoder.mixers[0].norm1.num_batches_tracked == 2
    assert not torch.allclose(norm.running_var, parts.visual_encoder.mixers[0].norm1.running_var)


@pytest.fixture(scope="module")
def shared(tmp_path_factory, backbone):
    """What two processes have written."""
    folder = tmp_path_factory.mktemp("shared")
    run_in_processes(2, toy.share, str(folder), str(backbone))
    return folder


def test_two_processes_train_what_one_trains(shared, backbone):
    for name, (alone, curve) in {
        "grounding": toy.train_grounding(Execution()),
        "parts": toy.train_grounding(Execution(accumulation_steps=2), without_batch_norm=True),
        "maskformer": toy.train_maskformer(Execution(), backbone, dropout=False),
    }.items():
        has_batch_norm = any(isinstance(module, nn.BatchNorm2d) for module in alone.modules())
        assert has_batch_norm == (name != "parts")
        assert_close(alone.state_dict(), toy.read(shared / name))
        assert curve.losses == pytest.approx(toy.read_losses(shared / name), rel=1e-5)


def test_two_processes_train_in_bf16_what_one_trains(shared):
    alone, curve = toy.train_grounding(Execution("bf16"), iterations=1)
    together = toy.read(shared / "bf16")
    statistics = [name for name in together if name.endswith(("running_mean", "running_var"))]
    assert len(statistics) > 3
    for name in statistics:
        torch.testing.assert_close(together[name], alone.state_dict()[name], rtol=1e-2, atol=1e-3)
        assert together[name].dtype == torch.float32
    assert toy.read_losses(shared / "bf16") == pytest.approx(curve.losses, rel=1e-2)


def test_two_processes_that_stopped_go_on_to_the_same_bytes(shared):
    undisturbed = (shared / "dropout").read_bytes()
    assert (shared / "resumed").read_bytes() == undisturbed
    assert (shared / "maskformer").read_bytes() != undisturbed


def test_a_part_without_labels_has_no_share_of_the_loss_of_masks(backbone):
    model = toy.toy_segmenter(backbone).model.eval()
    images, labels = ResizedSource(toy.toy_pictures(), image_size=64).batch([0, 1, 2, 5])
    labels[0] = 255
    whole = segmentation_loss(model, images, labels)
    totals = count_targets(model, labels)
    parts = [segmentation_loss(model, images[rows], labels[rows], totals=totals) for rows in (slice(0, 1), slice(1, 4))]
    torch.testing.assert_close(sum(parts), whole)


def test_bf16_ends_near_float32_and_its_weights_are_float32(backbone):
    for train, arguments in ((toy.train_grounding, {}), (toy.train_maskformer, {"backbone": backbone})):
        arguments = {**arguments, "iterations": 2}
        exact, curve = train(Execution(), **arguments)
        model, curve_bf16 = train(Execution(mixed_precision="bf16"), **arguments)
        assert curve_bf16.losses == pytest.approx(curve.losses, rel=0.1)
        assert curve_bf16.losses != curve.losses
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        again, curve_again = train(Execution(), **arguments)
        assert_equal(exact.state_dict(), again.state_dict())  # nothing of bf16 is left in this process
        assert curve_again.losses == curve.losses


def test_fp16_is_for_gpus():
    with pytest.raises(UserError, match="mixed_precision must be 'none' or 'bf16' on the CPU, got 'fp16'"):
        toy.train_grounding(Execution(mixed_precision="fp16"))


def test_a_batch_that_does_not_divide_is_one_line():
    with pytest.raises(UserError, match=r"batch_size must be a multiple of .* \(1 x 3\), got 8; change one"):
        toy.train_grounding(Execution(accumulation_steps=3))
