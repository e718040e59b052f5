"""From shards to masks on a tiny real pipeline: fit, predict, synthesize, any words."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffground.data.labelled import LabelledSample
from diffground.data.overlay import draw_masks
from diffground.data.shards import (
    Sample,
    decode_json,
    decode_label,
    encode_json,
    encode_mask,
    read_samples,
    read_shard,
    write_shard,
)
from diffground.diffusion.generate import generate_shards
from diffground.diffusion.generator import Generator
from diffground.diffusion.sampling import Sampling
from diffground.errors import UserError
from diffground.grounding.checkpoint import save_grounding
from diffground.grounding.config import GroundingConfig
from diffground.grounding.fit import FittedGrounding, fit_grounding
from diffground.grounding.prediction import Grounder, likeliest_word
from diffground.grounding.synthesize import label_map, redraw_seed, synthesize_shards
from diffground.prompts import PromptRecord
from diffground.vocabulary import load_vocabulary, photograph_of

VOCABULARY = load_vocabulary("pascal", unseen=["dog"])
CONFIG = GroundingConfig(
    reduced_channels=(4, 4, 8),
    embed_dim=16,
    num_layers=1,
    num_heads=2,
    ffn_dim=16,
    patch_size=1,
    tokens_at="features",
    branches="conditional",
    word_attention=True,
    gain_timesteps=(500,),
    query_noise=0.1,
    text_drop=0.2,
    training_data="sim",
    training_type="without_zero_masks",
    iterations=3,
    batch_size=4,
    gradient_accumulation_steps=1,
    mixed_precision="none",
    learning_rate=1e-3,
    weight_decay=0.0,
    decay_frac=0.0,
    mask_threshold=0.5,
    resolve_overlaps=True,
    seed=0,
)
SAMPLING = Sampling(3, 2.0, 1)
CHOICES = [("cat",), ("bus", "cat"), ("pottedplant",), ("cat", "pottedplant"), ("bus",)]
CPU = torch.device("cpu")


def records() -> list[PromptRecord]:
    return [
        PromptRecord(
            id=f"train-{i}",
            prompt=photograph_of(*(VOCABULARY.phrases[c] for c in categories)),
            categories=categories,
            group="one_seen" if len(categories) == 1 else "two_seen",
            seed=i,
            source="template",
        )
        for i, categories in enumerate(CHOICES)
    ]


@pytest.fixture(scope="module")
def shards(generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """generated/ and oracle/; the oracle finds a square for every category but 'bus'."""
    folder = tmp_path_factory.mktemp("shards")
    generate_shards(
        records(), out_dir=folder / "generated", generator=generator, batch_size=8, shard_size=3, sampling=SAMPLING
    )
    mask = np.zeros((32, 32), dtype=bool)
    mask[8:24, 8:24] = True
    for path in sorted((folder / "generated").glob("*.tar")):
        found = []
        for sample in read_shard(path):
            categories = decode_json(sample.members["meta.json"])["categories"]
            masks = {f"mask.{c}.png": encode_mask(mask) for c in categories if c != "bus"}
            found.append(Sample(key=sample.key, members={**masks, "meta.json": encode_json({})}))
        write_shard(folder / "oracle" / path.name, found)
    return folder


@pytest.fixture(scope="module")
def fit(shards: Path, generator: Generator) -> Callable[[GroundingConfig], FittedGrounding]:
    def run(config: GroundingConfig) -> FittedGrounding:
        return fit_grounding(
            [(shards / "generated", shards / "oracle")],
            generator=generator,
            vocabulary=VOCABULARY,
            config=config,
            sampling=Sampling(3, 3.0, 1),
            feature_batch_size=2,
            device=CPU,
        )

    return run


@pytest.fixture(scope="module")
def model_folder(fit: Callable[[GroundingConfig], FittedGrounding], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "grounding"
    fitted = fit(CONFIG)
    save_grounding(folder, fitted.module, fitted.spec, card="")
    return folder


def test_what_the_detector_missed_is_skipped_and_counted(fit: Callable[[GroundingConfig], FittedGrounding]) -> None:
    metrics = fit(CONFIG).metrics()
    assert (metrics["num_samples"], metrics["num_skipped_samples"]) == (5, 1)  # ("bus",) has nothing left
    assert (metrics["num_queries"], metrics["num_skipped_queries"]) == (7, 2)
    assert metrics["skipped_queries_percent"] == pytest.approx(100 * 2 / 7)
    trusting = fit(replace(CONFIG, training_type="normal")).metrics()
    assert (trusting["num_skipped_samples"], trusting["num_skipped_queries"]) == (0, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"word_attention": False},
        {"gain_timesteps": ()},
        {"branches": "both"},
        {"tokens_at": "image", "patch_size": 4},
    ],
)
def test_every_variant_trains(fit: Callable[[GroundingConfig], FittedGrounding], change: dict) -> None:
    fitted = fit(replace(CONFIG, **change))
    assert np.isfinite(fitted.curve.losses[-1])
    assert (fitted.module.attention_branch is None) == (change.get("word_attention") is False)


def test_the_same_seed_gives_the_same_module(fit: Callable[[GroundingConfig], FittedGrounding]) -> None:
    one, two = fit(CONFIG).module.state_dict(), fit(CONFIG).module.state_dict()
    assert len(one) > 10
    assert all(torch.equal(one[name], two[name]) for name in one)


def without_masks(sample: Sample) -> Sample:
    """The sample of an oracle that found nothing."""
    return Sample(key=sample.key, members={"meta.json": encode_json({})})


def test_a_detector_that_finds_nothing_stops_training(shards: Path, generator: Generator, tmp_path: Path) -> None:
    for path in sorted((shards / "oracle").glob("*.tar")):
        write_shard(tmp_path / path.name, [without_masks(s) for s in read_shard(path)])
    with pytest.raises(UserError, match=r"may miss at most 95% of the named objects, it missed 7 of 7"):
        fit_grounding(
            [(shards / "generated", tmp_path)],
            generator=generator,
            vocabulary=VOCABULARY,
            config=CONFIG,
            sampling=Sampling(3, 3.0, 1),
            feature_batch_size=2,
            device=CPU,
        )


def test_a_detector_that_finds_nothing_is_not_hidden_by_another_source(
    shards: Path, generator: Generator, tmp_path: Path
) -> None:
    for path in sorted((shards / "oracle").glob("*.tar")):
        write_shard(tmp_path / path.name, [without_masks(s) for s in read_shard(path)])
    good, bad = (shards / "generated", shards / "oracle"), (shards / "generated", tmp_path)
    arguments = {
        "generator": generator,
        "vocabulary": VOCABULARY,
        "config": CONFIG,
        "sampling": Sampling(3, 3.0, 1),
        "feature_batch_size": 2,
        "device": CPU,
    }
    twice = fit_grounding([good, good], **arguments)
    assert twice.counts.num_samples == 10
    for sources in ([good, bad], [bad, good]):
        with pytest.raises(UserError, match=f"{tmp_path}: the detector may miss at most .* it missed 7 of 7"):
            fit_grounding(sources, **arguments)


def test_probabilities_of_a_batch_equal_those_one_by_one(model_folder: Path, generator: Generator) -> None:
    grounder = Grounder.load(model_folder, generator=generator, device=CPU)
    words = [["dog"], ["potted plant", "cat"], ["unicorn"]]  # the last is not in its prompt, nor known to the tokenizer
    prompts = ["a photograph of a dog", "a photograph of a cat and a potted plant", "a photograph of a bus"]
    settings = {"timestep": 40, "image_size": 32}
    latents = generator.noise([1, 2, 3])
    together = grounder.probs(latents=latents, prompts=prompts, words=words, **settings)
    assert [tuple(p.shape) for p in together] == [(1, 32, 32), (2, 32, 32), (1, 32, 32)]
    for i in range(3):
        alone = grounder.probs(
            latents=latents[i : i + 1], prompts=prompts[i : i + 1], words=words[i : i + 1], **settings
        )
        torch.testing.assert_close(alone[0], together[i], atol=1e-4, rtol=1e-3)


def test_a_module_for_another_generator_is_refused(
    fit: Callable[[GroundingConfig], FittedGrounding], generator: Generator, tmp_path: Path
) -> None:
    spec = replace(fit(CONFIG).spec, feature_channels={4: 3, 8: 3, 16: 3})
    save_grounding(tmp_path, spec.build(), spec, card="")
    with pytest.raises(
        UserError, match=r"reads features .* but the generator gives .* run `dvc repro train_grounding`"
    ):
        Grounder.load(tmp_path, generator=generator, device=CPU)


def test_synthesize_writes_images_and_labels_that_do_not_depend_on_the_batch(
    model_folder: Path, generator: Generator, tmp_path: Path
) -> None:
    for batch_size in (1, 3):
        num_shards = synthesize_shards(
            records(),
            out_dir=tmp_path / str(batch_size),
            generator=generator,
            grounder=Grounder.load(model_folder, generator=generator, device=CPU),
            grounder_id="g",
            vocabulary=VOCABULARY,
            mask_threshold=0.5,
            batch_size=batch_size,
            shard_size=3,
            sampling=SAMPLING,
        )
        assert num_shards == 2
    single, triple = (list(read_samples(tmp_path / str(n))) for n in (1, 3))
    assert [s.key for s in single] == [s.key for s in triple] == [f"train-{i}" for i in range(5)]
    for one, other, categories in zip(single, triple, CHOICES, strict=True):
        assert sorted(one.members) == ["image.png", "label.png", "meta.json"]
        labels = decode_label(one.members["label.png"])
        assert labels.shape == (32, 32)
        assert set(np.unique(labels)) <= {0, *(VOCABULARY.index(c) + 1 for c in categories)}
        assert (labels != decode_label(other.members["label.png"])).mean() < 0.01
        summary = decode_json(one.members["meta.json"])["masks"]
        assert list(summary) == sorted(categories)
        assert all(0 <= entry["max_prob"] <= 1 for entry in summary.values())
        quality = decode_json(one.members["meta.json"])["quality"]
        assert quality == 0 or 0.5 <= quality <= min(entry["max_prob"] for entry in summary.values())
    names = json.loads((tmp_path / "1/categories.json").read_text(encoding="utf-8"))
    assert tuple(names) == VOCABULARY.categories


def test_images_of_low_quality_are_drawn_again_and_the_best_draw_is_kept(
    model_folder: Path, generator: Generator, tmp_path: Path
) -> None:
    def synthesize(name: str, of: list[PromptRecord], **options: Any) -> list[LabelledSample]:
        grounder = Grounder.load(model_folder, generator=generator, device=CPU)
        synthesize_shards(
            of,
            out_dir=tmp_path / name,
            generator=generator,
            grounder=grounder,
            grounder_id="g",
            vocabulary=VOCABULARY,
            mask_threshold=0.0,
            batch_size=1,
            shard_size=3,
            sampling=SAMPLING,
            **options,
        )
        return [LabelledSample(sample) for sample in read_samples(tmp_path / name)]

    once = synthesize("once", records())
    limit = sorted(sample.quality for sample in once)[2] + 1e-4  # three of five are below
    best = synthesize("best", records(), redraw_below=limit, max_draws=3)
    assert [sample.key for sample in best] == [sample.key for sample in once]
    for record, first, kept in zip(records(), once, best, strict=True):
        seeds = [record.seed, redraw_seed(record.seed, 2), redraw_seed(record.seed, 3)]
        assert len(set(seeds)) == 3
        if first.quality >= limit:
            assert kept.sample == first.sample
            continue
        draws = [synthesize(f"{record.id}-{seed}", [replace(record, seed=seed)])[0] for seed in seeds]
        if draws[1].quality >= limit:
            draws.pop()
        assert kept.sample == max(draws, key=lambda sample: sample.quality).sample
    assert sum(kept.seed != first.seed for first, kept in zip(once, best, strict=True)) > 0


def test_label_map_worked_by_hand() -> None:
    probs = {"dog": np.array([[0.9, 0.5, 0.2]]), "aeroplane": np.array([[0.8, 0.49, 0.7]])}
    label = label_map(probs, vocabulary=VOCABULARY, mask_threshold=0.5)
    assert label.dtype == np.uint8
    assert label.tolist() == [[12, 12, 1]]  # dog is the 12th category of VOC, aeroplane the first
    assert label_map(probs, vocabulary=VOCABULARY, mask_threshold=0.85).tolist() == [[12, 0, 0]]


def test_overlaps_go_to_the_likelier_word() -> None:
    probs = np.array([[[0.9, 0.6, 0.1]], [[0.8, 0.7, 0.2]]])
    assert likeliest_word(probs, mask_threshold=0.5).tolist() == [[[True, False, False]], [[False, True, False]]]


def test_drawing_enlarges_by_a_whole_number_and_colours_only_the_mask() -> None:
    image = np.full((100, 100, 3), 200, dtype=np.uint8)
    mask = np.zeros((1, 100, 100), dtype=bool)
    mask[0, :50] = True
    drawn = draw_masks(image, mask)
    assert drawn.shape == (300, 600, 3)
    assert (drawn[:, :300] == 200).all()
    assert (drawn[150:, 300:] == 200).all()
    assert (drawn[:150, 300:] != 200).any(axis=2).all()
