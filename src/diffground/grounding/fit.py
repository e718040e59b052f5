"""From shards to a trained grounding module: what stage train_grounding does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from diffground.data.labelled import LabelledSample, read_labelled_samples
from diffground.diffusion.generator import Features, Generator
from diffground.diffusion.sampling import Sampling
from diffground.errors import UserError
from diffground.grounding.checkpoint import GroundingSpec
from diffground.grounding.config import GroundingConfig
from diffground.grounding.features import gather_features
from diffground.grounding.module import GroundingModule
from diffground.grounding.prediction import read_features
from diffground.grounding.train import TrainingSet, train_module
from diffground.runtime.batches import naming_what_to_lower
from diffground.training.loop import Execution, LossCurve, OnPoint
from diffground.training.resume import Unfinished
from diffground.vocabulary import Vocabulary

MAX_SKIPPED_FRAC = 0.95
"""Training stops when the detector misses a larger share of the named objects: generator and detector do not fit."""


@dataclass(frozen=True)
class SkipCounts:
    """What the oracle did not find. A query is one named category of one sample."""

    num_samples: int
    num_skipped_samples: int
    """Samples in which none of the named categories was found."""
    num_queries: int
    num_skipped_queries: int

    @property
    def skipped_frac(self) -> float:
        """Share of the queries that the loss does not read, 0..1."""
        return self.num_skipped_queries / max(self.num_queries, 1)


@dataclass(frozen=True)
class FittedGrounding:
    """A trained module, on `device`, and the statistics of its training."""

    module: GroundingModule
    spec: GroundingSpec
    curve: LossCurve
    counts: SkipCounts

    def metrics(self) -> dict[str, float]:
        """What train_grounding.json holds."""
        return {
            **asdict(self.counts),
            "skipped_queries_percent": 100 * self.counts.skipped_frac,
            "final_loss": self.curve.losses[-1],
            "num_weights": sum(weight.numel() for weight in self.module.parameters()),
        }


def fit_grounding(
    sources: Sequence[tuple[Path, Path]],
    *,
    generator: Generator,
    vocabulary: Vocabulary,
    config: GroundingConfig,
    sampling: Sampling,
    feature_batch_size: int,
    device: torch.device,
    unfinished: Unfinished | None = None,
    on_point: OnPoint | None = None,
) -> FittedGrounding:
    """Read shards of images and of their masks, and train on all of them alike.

    sampling: how the images were sampled, or inverted; kept in the module's spec.
    sources: pairs of folders (images, masks), one or more: those of `generate` and `detect`, of `invert_real`, or both.
    unfinished: where the training saves its state and resumes from; None: nowhere.
    Raises: UserError for shards that do not fit each other and when the oracle of a pair found (almost) nothing,
    InfrastructureError where memory runs out.
    """
    everything = [sample for images, oracle in sources for sample in _read_source(images, oracle, config.training_type)]
    _require_one_timestep(everything)
    samples, counts = keep_labelled(everything, config.training_type)
    images, oracle = sources[0]
    torch.manual_seed(config.seed)
    spec = spec_for(generator, config, sampling=sampling, timestep=everything[0].timestep)
    module = spec.build().to(device)
    data = training_set(
        samples,
        generator=generator,
        vocabulary=vocabulary,
        config=config,
        image_size=next(read_labelled_samples(generated=images, oracle=oracle)).image().shape[0],
        batch_size=feature_batch_size,
        device=device,
    )
    with naming_what_to_lower(
        "train_grounding", "grounding.batch_size, or raise grounding.gradient_accumulation_steps"
    ):
        curve = train_module(
            module,
            data,
            training_type=config.training_type,
            iterations=config.iterations,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            decay_frac=config.decay_frac,
            query_noise=config.query_noise,
            text_drop=config.text_drop if config.word_attention else 0.0,
            seed=config.seed,
            execution=Execution(config.mixed_precision, config.gradient_accumulation_steps, unfinished, on_point),
        )
    return FittedGrounding(module=module, spec=spec, curve=curve, counts=counts)


def _read_source(images: Path, oracle: Path, training_type: str) -> list[LabelledSample]:
    """Without the images themselves: training reads their features."""
    samples = [sample.without_image() for sample in read_labelled_samples(generated=images, oracle=oracle)]
    kept, counts = keep_labelled(samples, training_type)
    if not kept or counts.skipped_frac > MAX_SKIPPED_FRAC:
        raise UserError(
            f"{oracle}: the detector may miss at most {MAX_SKIPPED_FRAC:.0%} of the named objects, it missed "
            f"{counts.num_skipped_queries} of {counts.num_queries}; lower detector.score_threshold"
        )
    return samples


def _require_one_timestep(samples: Sequence[LabelledSample]) -> None:
    """The features of a batch are read at one timestep. Raises: UserError when the latents are of several."""
    timesteps = sorted({s.timestep for s in samples})
    if len(timesteps) > 1:
        raise UserError(
            f"train_grounding: all latents must be of one timestep, got {', '.join(map(str, timesteps))}; make all "
            f"samples with the same generator.num_steps and generator.tapped_step"
        )


def keep_labelled(samples: Sequence[LabelledSample], training_type: str) -> tuple[list[LabelledSample], SkipCounts]:
    """Leave out samples that the loss would not read; count them."""
    trusts_detector = training_type == "normal"
    kept = [s for s in samples if s.found or trusts_detector]
    num_queries = sum(len(s.categories) for s in samples)
    num_found = num_queries if trusts_detector else sum(len(s.found) for s in samples)
    return kept, SkipCounts(
        num_samples=len(samples),
        num_skipped_samples=len(samples) - len(kept),
        num_queries=num_queries,
        num_skipped_queries=num_queries - num_found,
    )


def spec_for(
    generator: Generator, config: GroundingConfig, *, sampling: Sampling, timestep: int | None = None
) -> GroundingSpec:
    """The module of `config` for the features of `generator`. timestep: None takes that of the tapped step."""
    if timestep is None:
        timestep = generator.timestep(sampling)
    gain_timesteps = tuple(config.gain_timesteps) if config.word_attention else ()
    return GroundingSpec(
        feature_channels=generator.feature_channels(config.branches),
        text_dim=generator.text_dim,
        num_attention_maps=generator.num_attention_maps + len(gain_timesteps) if config.word_attention else 0,
        reduced_channels=tuple(config.reduced_channels),
        embed_dim=config.embed_dim,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        ffn_dim=config.ffn_dim,
        patch_size=config.patch_size,
        tokens_at=config.tokens_at,
        branches=config.branches,
        gain_timesteps=gain_timesteps,
        generator_id=generator.generator_id,
        image_size=generator.image_size,
        timestep=timestep,
        sampling=sampling,
    )


def training_set(
    samples: Sequence[LabelledSample],
    *,
    generator: Generator,
    vocabulary: Vocabulary,
    config: GroundingConfig,
    image_size: int,
    batch_size: int,
    device: torch.device,
) -> TrainingSet:
    """Words, embeddings, features and masks of `samples`, whose images are `image_size` pixels wide and high;
    `batch_size` samples in one UNet pass."""
    latents = torch.from_numpy(np.stack([s.latent for s in samples]))  # (N, C, h, w)
    num_queries = max(len(s.categories) for s in samples)
    words = [vocabulary.words_in(s.prompt, s.categories) for s in samples]

    def extract(indices: Sequence[int]) -> Features:
        chosen = list(indices)
        features = read_features(
            generator,
            latents=latents[chosen].float(),
            prompts=[samples[i].prompt for i in chosen],
            words=[words[i] for i in chosen],
            timestep=samples[chosen[0]].timestep,
            branches=config.branches,
            with_attention=config.word_attention,
            gain_timesteps=config.gain_timesteps,
        )
        return features.padded(num_queries)

    named = {word for of_sample in words for word in of_sample}
    used = [word for category in vocabulary.categories for word in vocabulary.words[category] if word in named]
    vectors = generator.category_embeddings(used).float().cpu()

    return TrainingSet(
        samples=samples,
        words=words,
        embeddings=dict(zip(used, vectors, strict=True)),
        features=gather_features(extract, num_samples=len(samples), batch_size=batch_size, device=device),
        image_size=image_size,
    )
