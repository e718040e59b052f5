"""Both trainings at toy size, as they run in this process, in several, and in one that is killed."""

import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from toy_world import NUM_MAPS, make_module, make_toy

from diffground.data.labelled import LabelledSample
from diffground.grounding.train import train_module
from diffground.runtime.rank import is_main_process
from diffground.segmentation import train as segmentation_train
from diffground.segmentation.maskformer import MaskFormerSegmenter, build_maskformer
from diffground.segmentation.train import train_segmenter
from diffground.training.loop import Execution
from diffground.training.resume import Unfinished

# A source that counts how often it is read must be read for every step.
segmentation_train.ResizedSource = partial(segmentation_train.ResizedSource, max_cache_bytes=0)

GROUNDING = {
    "training_type": "without_zero_masks", "iterations": 6, "batch_size": 8, "learning_rate": 3e-3,
    "weight_decay": 1e-3, "decay_frac": 0.5, "query_noise": 0.1, "text_drop": 0.5, "seed": 0,
}  # fmt: skip
SEGMENTER = {
    "iterations": 6,
    "batch_size": 4,
    "learning_rate": 2e-3,
    "weight_decay": 1e-3,
    "seed": 3,
    "backbone_lr_factor": 0.5,
}


class StoppedError(Exception):
    """A training that ends before its time."""


class Deadly:
    """A sequence whose `last`-th reading raises `StoppedError` or, where `kills`, ends the process."""

    def __init__(self, items, last, *, kills):
        self._items, self._left, self._kills = items, last, kills

    def __len__(self):
        return len(self._items)

    def __getitem__(self, i):
        self._left -= 1
        if self._left == 0 and self._kills:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._left == 0:
            raise StoppedError
        return self._items[i]


@dataclass(frozen=True)
class DeadlySample(LabelledSample):
    """A sample whose masks are read together with an item of `reads`."""

    reads: Deadly | None = None

    def masks(self):
        self.reads[0]
        return super().masks()


def toy_module():
    torch.manual_seed(0)
    return make_module(num_attention_maps=NUM_MAPS)


def toy_data(last=0, *, kills=False):
    toy = make_toy([f"word{i}" for i in range(12)], num_samples=20, seed=1, text_tells=True)
    for i in (3, 4, 5, 11):  # what nobody found makes parts of a batch unequal
        toy.masks[i].clear()
    data, reads = toy.training_set(with_attention=True), Deadly([None], last, kills=kills)
    return replace(data, samples=[DeadlySample(s.sample, s.oracle, reads) for s in data.samples])


def train_grounding(execution, *, last=0, kills=False, without_batch_norm=False, **changes):
    module = toy_module()
    if without_batch_norm:
        for mixer in module.visual_encoder.mixers:
            mixer.norm1, mixer.norm2 = nn.Identity(), nn.Identity()
    curve = train_module(module, toy_data(last, kills=kills), **{**GROUNDING, **changes}, execution=execution)
    return module, curve


def toy_pictures():
    """Twelve images with one, two or three coloured squares, and some pixels that nobody labelled."""
    rng = np.random.default_rng(0)
    items = []
    for i in range(12):
        image, label = np.full((32, 32, 3), 128, dtype=np.uint8), np.zeros((32, 32), dtype=np.uint8)
        for k in range(1 + i % 3):
            y, x = rng.integers(0, 20, 2)
            image[y : y + 12, x : x + 12], label[y : y + 12, x : x + 12] = np.eye(3, dtype=np.uint8)[k] * 255, 1 + k
        label[:2] = 255
        items.append((image, label))
    return items


def toy_segmenter(backbone, *, matching="fixed", dropout=True):
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
    if not dropout:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            elif isinstance(getattr(module, "dropout", None), float):
                module.dropout = 0.0
    return MaskFormerSegmenter(model, categories=("red", "green", "blue"), image_size=64, device=torch.device("cpu"))


def train_maskformer(execution, backbone, *, last=0, kills=False, frozen_batch_norm=False, dropout=True, **changes):
    segmenter = toy_segmenter(backbone, dropout=dropout)
    if frozen_batch_norm:
        for module in segmenter.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
                module.train = lambda mode=True: None  # it stays so
    curve = train_segmenter(
        segmenter, Deadly(toy_pictures(), last, kills=kills), **{**SEGMENTER, **changes}, execution=execution
    )
    return segmenter.model, curve


def write(out, model, curve):
    if is_main_process():
        weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        save_file(weights, out, metadata={"losses": json.dumps(curve.losses)})


def read(out):
    return load_file(out)


def read_losses(out):
    with safe_open(out, framework="pt") as file:
        return json.loads(file.metadata()["losses"])


def share(folder, backbone):
    """What each of two processes does: five trainings, and one that stops after three iterations and goes on."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    write(f"{folder}/grounding", *train_grounding(Execution()))
    write(f"{folder}/parts", *train_grounding(Execution(accumulation_steps=2), without_batch_norm=True))
    write(f"{folder}/maskformer", *train_maskformer(Execution(), backbone, dropout=False))
    write(f"{folder}/bf16", *train_grounding(Execution("bf16"), iterations=1))
    write(f"{folder}/dropout", *train_maskformer(Execution(), backbone))
    state = unfinished(f"{folder}/state")
    with suppress(StoppedError):
        train_maskformer(Execution(unfinished=state), backbone, last=3 * SEGMENTER["batch_size"] // 2 + 1)
    if is_main_process():
        assert state.load().values["iteration"] == 3
    write(f"{folder}/resumed", *train_maskformer(Execution(unfinished=state), backbone))


def go_on_from_different_states(folder):
    """What each of two processes does, on two machines that share no filesystem."""
    torch.set_num_threads(1)
    state = unfinished(f"{folder}/machine_{os.environ['RANK']}")
    with suppress(StoppedError):
        train_grounding(Execution(unfinished=state), last=3 * GROUNDING["batch_size"] // 2 + 1)
    train_grounding(Execution(unfinished=state))


def unfinished(folder, *, seed=0, every_s=1e-9):
    return Unfinished(Path(folder), fingerprint={"seed": seed}, every_s=every_s)


if __name__ == "__main__":
    kind, state, written, last, *rest = sys.argv[1:]
    torch.set_num_threads(1)
    train = {"grounding": train_grounding, "maskformer": train_maskformer}[kind]
    write(written, *train(Execution(unfinished=unfinished(state)), *rest, last=int(last), kills=True))
