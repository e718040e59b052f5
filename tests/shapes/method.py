"""The whole method once: generate, detect, a step of grounding, synthesize, a step of the segmenter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torchvision.models.detection import MaskRCNN

from diffground.data.labelled import LabelledSample, read_labelled_samples
from diffground.detection.detector import Detector
from diffground.detection.oracle import detect_shards, require_labels
from diffground.diffusion.generate import generate_shards
from diffground.diffusion.generator import Generator
from diffground.diffusion.sampling import Sampling
from diffground.grounding.checkpoint import save_grounding
from diffground.grounding.fit import FittedGrounding, fit_grounding
from diffground.grounding.prediction import Grounder
from diffground.grounding.synthesize import synthesize_shards
from diffground.prompts import PromptRecord
from diffground.reproduction.composition import compose_params
from diffground.reproduction.config import Params, load_params
from diffground.segmentation.maskformer import MaskFormerSegmenter
from diffground.segmentation.protocol2 import fit_segmenter
from diffground.segmentation.sources import ShardSource
from diffground.vocabulary import photograph_of

CPU = torch.device("cpu")
CATEGORIES = ("person", "cat")
"""What the prompts name; both are seen in the paper's first split."""
ONE_STEP = (
    "generator.num_steps=1",
    "generator.tapped_step=1",
    "generator.batch_size=1",
    "grounding.iterations=1",
    "segmenter.iterations=1",
    # random weights: whatever is found counts
    "detector.score_threshold=0.0",
)
Shapes = list[tuple[tuple[int, ...], ...]]


@dataclass(frozen=True)
class MethodRun:
    """What came of it."""

    sample: LabelledSample
    fitted: FittedGrounding
    image: np.ndarray
    """Of the synthetic set, uint8 (H, W, 3)."""
    label: np.ndarray
    """uint8 (H, W)."""
    segmenter: MaskFormerSegmenter
    segmenter_loss: float


def paper_params(folder: Path, *overrides: str) -> Params:
    """Profile paper_voc with one step of everything, then `overrides`."""
    text = compose_params("paper_voc", conf=Path(__file__).parents[2] / "conf", overrides=[*ONE_STEP, *overrides])
    (folder / "params.yaml").write_text(text)
    return load_params(folder / "params.yaml")


def run_method(generator: Generator, *, detector: Detector, params: Params, folder: Path) -> MethodRun:
    """One image for training and one for the synthetic set, each with both of CATEGORIES."""
    vocabulary = params.vocabulary.load()
    require_labels(detector, CATEGORIES, detector_names=vocabulary.detector_names)
    p = params.generator
    sampler = {"sampling": p.sampling, "batch_size": p.batch_size, "shard_size": p.shard_size}
    generate_shards([_record("train", 0)], out_dir=folder / "generated", generator=generator, **sampler)
    detect_shards(
        folder / "generated",
        folder / "oracle",
        detector=detector,
        detector_id="random",
        detector_names=vocabulary.detector_names,
        score_threshold=params.detector.score_threshold,
        mask_threshold=params.detector.mask_threshold,
        batch_size=params.detector.batch_size,
        description="detect",
    )
    fitted = fit_grounding(
        [(folder / "generated", folder / "oracle")],
        generator=generator,
        vocabulary=vocabulary,
        config=params.grounding,
        sampling=Sampling(50, 5.0, 5),
        feature_batch_size=1,
        device=CPU,
    )
    save_grounding(folder / "grounding", fitted.module, fitted.spec, card="")
    synthesize_shards(
        [_record("synthesis", 1)],
        out_dir=folder / "synthetic",
        generator=generator,
        grounder=Grounder.load(folder / "grounding", generator=generator, device=CPU),
        grounder_id="one step",
        vocabulary=vocabulary,
        mask_threshold=params.grounding.mask_threshold,
        **sampler,
    )
    source = ShardSource(folder / "synthetic")
    assert len(source) == 1
    image, label = source[0]
    segmenter, curve = fit_segmenter(
        source, categories=vocabulary.categories, config=params.segmenter, device=CPU, description="segmenter"
    )
    (sample,) = read_labelled_samples(generated=folder / "generated", oracle=folder / "oracle")
    return MethodRun(
        sample=sample, fitted=fitted, image=image, label=label, segmenter=segmenter, segmenter_loss=curve.losses[-1]
    )


def _record(name: str, seed: int) -> PromptRecord:
    return PromptRecord(
        id=f"{name}-000000",
        prompt=photograph_of(*CATEGORIES),
        categories=CATEGORIES,
        group="two_seen",
        seed=seed,
        source="template",
    )


@torch.no_grad()
def favour(model: MaskRCNN, classes: list[int]) -> None:
    """Let a random detector call every box each of `classes`, with the same score, and fill its mask."""
    scores = model.roi_heads.box_predictor.cls_score
    scores.weight[classes] = 0
    scores.bias[classes] = 1000
    masks = [layer for layer in model.roi_heads.mask_predictor.modules() if isinstance(layer, nn.Conv2d)][-1]
    masks.weight.zero_()
    masks.bias.fill_(1)
    model.roi_heads.nms_thresh = 0.01  # few boxes, or those of one class would take all places


@contextmanager
def recorded_shapes(*kinds: type[nn.Module]) -> Iterator[dict[str, Shapes]]:
    """Class name -> shapes of the positional arguments and of the outputs, call by call, of all modules of `kinds`."""
    shapes: dict[str, Shapes] = {kind.__name__: [] for kind in kinds}

    def keep(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, kinds):
            tensors = [value for value in inputs if isinstance(value, Tensor)]
            outputs = [output] if isinstance(output, Tensor) else list(output.values())
            tensors += [value for value in outputs if isinstance(value, Tensor)]
            shapes[type(module).__name__].append(tuple(tuple(tensor.shape) for tensor in tensors))

    handle = register_module_forward_hook(keep)
    try:
        yield shapes
    finally:
        handle.remove()
