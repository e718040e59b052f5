"""What the stages are measured on: a few images of their own, with the detector's masks, and the models of params.yaml.

No reproduction is needed, and no trained module: random weights take as long as trained ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from diffground.data.labelled import LabelledSample, image_sample, read_labelled_samples
from diffground.data.shards import Sample, read_samples, write_shard
from diffground.detection.detector import Detector
from diffground.detection.load import load_detector
from diffground.detection.oracle import detect_shards
from diffground.diffusion.generate import generate_shards
from diffground.diffusion.generator import Generator
from diffground.diffusion.load import load_generator
from diffground.errors import UserError
from diffground.grounding.checkpoint import GroundingSpec
from diffground.grounding.fit import spec_for
from diffground.grounding.module import GroundingModule
from diffground.grounding.prediction import Grounder
from diffground.grounding.synthesize import label_map
from diffground.prompts import sample_training_prompts
from diffground.reproduction.config import Params
from diffground.segmentation.maskformer import MaskFormerSegmenter, build_maskformer
from diffground.vocabulary import Vocabulary

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Subject:
    """Models, and folders of shards: images, the detector's masks of them, and images with these masks as labels."""

    params: Params
    vocabulary: Vocabulary
    generator: Generator
    detector: Detector
    spec: GroundingSpec
    module: GroundingModule
    folder: Path

    @property
    def generated(self) -> Path:
        return self.folder / "generated"

    @property
    def oracle(self) -> Path:
        return self.folder / "oracle"

    @property
    def labelled(self) -> Path:
        return self.folder / "labelled"

    @property
    def network(self) -> nn.Module:
        """The detector's own."""
        model: nn.Module = self.detector._model  # type: ignore[attr-defined]
        return model

    def samples(self) -> list[LabelledSample]:
        return list(read_labelled_samples(generated=self.generated, oracle=self.oracle))

    def grounder(self) -> Grounder:
        return Grounder(
            generator=self.generator,
            module=self.module,
            branches=self.spec.branches,
            gain_timesteps=self.spec.gain_timesteps,
        )

    def segmenter(self) -> MaskFormerSegmenter:
        """Untrained."""
        s = self.params.segmenter
        torch.manual_seed(s.seed)
        model = build_maskformer(
            backbone=s.backbone,
            num_labels=1 + len(self.vocabulary.categories),
            matching=s.matching,
            hidden_dim=s.hidden_dim,
            num_queries=s.num_queries,
            decoder_layers=s.decoder_layers,
            ffn_dim=s.ffn_dim,
        )
        return MaskFormerSegmenter(model, categories=self.vocabulary.categories, image_size=s.image_size, device=CPU)

    def detect(self, out_dir: Path) -> int:
        """What stage detect does, in this process."""
        d = self.params.detector
        return detect_shards(
            self.generated,
            out_dir,
            detector=self.detector,
            detector_id="benchmark",
            detector_names=self.vocabulary.detector_names,
            score_threshold=d.score_threshold,
            mask_threshold=d.mask_threshold,
            batch_size=d.batch_size,
            description="detect",
        )


def make_subject(params: Params, folder: Path, *, num_images: int) -> Subject:
    """Sample `num_images` images, with one word and with two in turn, and fill the folders under `folder`.

    Raises: UserError as the stages do, and for backends whose networks the references do not know.
    """
    for key, value, known in (
        ("detector.backend", params.detector.backend, "torchvision"),
        ("segmenter.backend", params.segmenter.backend, "transformers"),
    ):
        if value != known:
            raise UserError(f"{key} must be '{known}' for this benchmark, got '{value}' (params.yaml)")
    p, d, vocabulary = params.generator, params.detector, params.vocabulary.load()
    generator = load_generator(p, CPU)
    torch.manual_seed(0)
    spec = spec_for(generator, params.grounding, sampling=p.sampling)
    subject = Subject(
        params=params,
        vocabulary=vocabulary,
        generator=generator,
        detector=load_detector(backend=d.backend, checkpoint=d.checkpoint, mask_threshold=d.mask_threshold, device=CPU),
        spec=spec,
        module=spec.build().eval().requires_grad_(False),
        folder=folder,
    )
    num_two = num_images // 2
    records = sample_training_prompts(vocabulary, num_one=num_images - num_two, num_two=num_two, seed=0)
    generate_shards(
        records,
        out_dir=subject.generated,
        generator=generator,
        sampling=p.sampling,
        batch_size=p.batch_size,
        shard_size=p.shard_size,
    )
    subject.detect(subject.oracle)
    write_shard(subject.labelled / "000000.tar", [_with_label(sample, vocabulary) for sample in subject.samples()])
    return subject


def _with_label(sample: LabelledSample, vocabulary: Vocabulary) -> Sample:
    image = sample.image()
    masks = {category: mask.astype(np.float32) for category, mask in sample.masks().items()}
    label = np.zeros(image.shape[:2], dtype=np.uint8)
    if masks:
        label = label_map(masks, vocabulary=vocabulary, mask_threshold=0.5)
    return image_sample(
        id=sample.key, prompt=sample.prompt, categories=sample.categories, settings={}, image=image, label=label
    )


def repeated_samples(folder: Path, *, num_bytes: int) -> list[Sample]:
    """The samples of a folder of shards, again and again under new keys, until they have `num_bytes`."""
    stored = list(read_samples(folder))
    found: list[Sample] = []
    size = 0
    while size < num_bytes:
        sample = stored[len(found) % len(stored)]
        found.append(Sample(key=f"sample-{len(found):06d}", members=sample.members))
        size += sum(map(len, sample.members.values()))
    return found
