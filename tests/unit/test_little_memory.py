"""Where samples go through a network: with less memory than a batch needs, the results are those of smaller batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from diffground import GroundedPipeline
from diffground.data.labelled import LabelledSample, image_sample
from diffground.data.shards import Sample, encode_png, list_shards, read_samples, write_shard
from diffground.data.voc import VocDataset
from diffground.detection.oracle import detect_shards
from diffground.detection.torchvision_backend import MaskRcnnDetector
from diffground.diffusion.checkpoint import generator_id
from diffground.diffusion.generate import generate_shards, sampler_settings
from diffground.diffusion.generator import Features, Generator, Tap
from diffground.diffusion.sampling import Sampling
from diffground.errors import InfrastructureError
from diffground.evaluation.attention_methods import AttentionMethod, AttentionSetting, DaamMaps
from diffground.evaluation.grounding_method import GroundingMethod
from diffground.grounding.features import gather_features
from diffground.grounding.prediction import Grounder
from diffground.grounding.real_images import real_shards
from diffground.grounding.synthesize import synthesize_shards
from diffground.prompts import PromptRecord
from diffground.reproduction.smoke import build_components
from diffground.runtime import batches
from diffground.segmentation.maskformer import MaskFormerSegmenter, build_maskformer
from tests.unit.diffusion.conftest import IMAGE_SIZE, checkpoint, generator
from tests.unit.grounding.toy_devkit import VOCABULARY, write_devkit
from tests.unit.runtime.little_memory import room_for, run_out_on_a_cpu, run_out_on_a_gpu
from tests.unit.segmentation.conftest import backbone
from tests.unit.toy_grounding import save_toy_grounding

__all__ = ["backbone", "checkpoint", "generator"]

CPU = torch.device("cpu")
GUIDED = Sampling(2, 2.0, 1)  # each sample takes two places in a batch of the UNet
CATEGORIES = (("dog", "cat"), ("bus",), ("cat",), ("dog", "bus"))
RECORDS = [
    PromptRecord(
        id=f"test-{i}",
        prompt=f"a photograph of a {' and a '.join(names)}",
        categories=names,
        group="one_seen",
        seed=100 + i,
        source="template",
    )
    for i, names in enumerate(CATEGORIES)
]


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nothing had run out of memory before."""
    monkeypatch.setattr(batches, "_ROOMS", {})


@pytest.fixture(scope="module")
def module_folder(generator: Generator, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grounding")
    timestep = generator.timestep(GUIDED)
    made_for = generator_id(str(checkpoint))
    return save_toy_grounding(folder, generator, generator_id=made_for, timestep=timestep, sampling=GUIDED)


@pytest.fixture(scope="module")
def grounder(generator: Generator, module_folder: Path) -> Grounder:
    return Grounder.load(module_folder, generator=generator, device=CPU)


@pytest.fixture(scope="module")
def samples(generator: Generator) -> list[LabelledSample]:
    """RECORDS, sampled."""
    found = generator.sample([r.prompt for r in RECORDS], [r.seed for r in RECORDS], GUIDED)
    settings = sampler_settings(generator, GUIDED)
    latents = found.latents.numpy().astype(np.float16)
    return [
        LabelledSample(image_sample(**record.to_json(), settings=settings, image=image, latent=latent))
        for record, image, latent in zip(RECORDS, found.images, latents, strict=True)
    ]


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in list_shards(folder)]


def both(
    network: nn.Module, write: Callable[[str, int], None], *, num: int, run_out: Callable[[], None] = run_out_on_a_cpu
) -> list[int]:
    """Runs `write(name, batch_size)` in batches of 2, and of 4 with memory for `num` places; the latter's batches."""
    write("small", 2)
    state = torch.get_rng_state()
    with room_for(num, network, run_out=run_out) as sizes:
        write("halved", 4)
    assert torch.equal(torch.get_rng_state(), state), "a batch that is computed again draws nothing"
    return sizes


@pytest.mark.parametrize("run_out", [run_out_on_a_cpu, run_out_on_a_gpu])
def test_generate_writes_the_bytes_of_smaller_batches(
    generator: Generator, tmp_path: Path, run_out: Callable[[], None]
) -> None:
    def write(name: str, batch_size: int) -> None:
        generate_shards(
            RECORDS,
            out_dir=tmp_path / name,
            generator=generator,
            sampling=GUIDED,
            batch_size=batch_size,
            shard_size=4,
        )

    assert both(generator._unet, write, num=4, run_out=run_out) == [8, *[4] * 4]
    assert contents(tmp_path / "halved") == contents(tmp_path / "small")
    assert [sample.key for sample in read_samples(tmp_path / "halved")] == [record.id for record in RECORDS]


def test_shards_are_those_of_samples_encoded_one_after_another(
    generator: Generator, samples: list[LabelledSample], tmp_path: Path
) -> None:
    generate_shards(RECORDS, out_dir=tmp_path / "new", generator=generator, sampling=GUIDED, batch_size=4, shard_size=4)
    write_shard(tmp_path / "plain" / "000000.tar", [sample.sample for sample in samples])
    assert contents(tmp_path / "new") == contents(tmp_path / "plain")


def test_synthesize_writes_the_bytes_of_smaller_batches(
    generator: Generator, grounder: Grounder, tmp_path: Path
) -> None:
    def write(name: str, batch_size: int) -> None:
        synthesize_shards(
            RECORDS,
            out_dir=tmp_path / name,
            generator=generator,
            grounder=grounder,
            grounder_id="toy",
            vocabulary=VOCABULARY,
            sampling=GUIDED,
            mask_threshold=0.5,
            batch_size=batch_size,
            shard_size=4,
        )

    assert both(generator._unet, write, num=4) == [8, *[4] * 4]
    assert contents(tmp_path / "halved") == contents(tmp_path / "small")


def test_invert_real_writes_the_bytes_of_smaller_batches(generator: Generator, tmp_path: Path) -> None:
    write_devkit(tmp_path / "devkit")
    dataset = VocDataset(tmp_path / "devkit", "train")

    def write(name: str, batch_size: int) -> None:
        real_shards(
            dataset,
            images_dir=tmp_path / name,
            oracle_dir=tmp_path / f"{name}_oracle",
            generator=generator,
            vocabulary=VOCABULARY,
            named=VOCABULARY.seen,
            num_images=4,
            min_area_frac=0.01,
            sampling=Sampling(3, 1.0, 1),
            fixed_point_iterations=0,
            batch_size=batch_size,
            shard_size=4,
        )

    assert both(generator._unet, write, num=2) == [4, *[2] * 4]
    assert len(contents(tmp_path / "halved")) == 1
    assert contents(tmp_path / "halved") == contents(tmp_path / "small")


def test_detect_writes_the_bytes_of_smaller_batches(tmp_path: Path) -> None:
    build_components(tmp_path / "models")
    detector = MaskRcnnDetector.load(str(tmp_path / "models/detector"), mask_threshold=0.5, device=CPU)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(4)]
    meta = b'{"categories": ["dog", "cat"]}'
    written = [Sample(f"s{i}", {"image.png": encode_png(image), "meta.json": meta}) for i, image in enumerate(images)]
    write_shard(tmp_path / "images" / "000000.tar", written)

    def write(name: str, batch_size: int) -> None:
        detect_shards(
            tmp_path / "images",
            tmp_path / name,
            detector=detector,
            detector_id="toy",
            detector_names=VOCABULARY.detector_names,
            score_threshold=0.0,
            mask_threshold=0.5,
            batch_size=batch_size,
            description="detect",
        )

    assert both(detector._model, write, num=2) == [4, 2, 2]
    assert contents(tmp_path / "halved") == contents(tmp_path / "small")


def test_the_evaluated_methods_give_the_masks_of_smaller_batches(
    generator: Generator, grounder: Grounder, samples: list[LabelledSample]
) -> None:
    grounding = GroundingMethod(grounder, VOCABULARY, IMAGE_SIZE, 0.5)
    setting = AttentionSetting(layers=(0, 1), threshold=0.5)
    daam = AttentionMethod(DaamMaps(generator, VOCABULARY, GUIDED), {1: setting, 2: setting}, IMAGE_SIZE)
    masks = [*grounding(samples[:2]), *grounding(samples[2:])]
    attended = [*daam(samples[:2]), *daam(samples[2:])]
    with room_for(2, generator._unet) as sizes:
        halved = grounding(samples)
    assert sizes == [4, 2, 2]
    assert [list(found) for found in halved] == [list(names) for names in CATEGORIES]
    for found, expected in zip(halved, masks, strict=True):
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
    batches._ROOMS.clear()
    with room_for(4, generator._unet) as sizes:
        halved = daam(samples)
    assert sizes == [8, *[4] * 4]
    for found, expected in zip(halved, attended, strict=True):
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("max_cache_bytes", [2**30, 0])
def test_features_of_a_training_are_those_of_smaller_batches(
    generator: Generator, samples: list[LabelledSample], max_cache_bytes: int
) -> None:
    latents = torch.from_numpy(np.stack([sample.latent for sample in samples])).float()
    words = [list(names) for names in CATEGORIES]

    def extract(indices: Sequence[int]) -> Features:
        chosen = list(indices)
        tap = Tap(words=[words[i] for i in chosen])
        prompts = [RECORDS[i].prompt for i in chosen]
        return generator.features(latents[chosen], prompts, timestep=200, tap=tap).padded(2)

    def gathered(batch_size: int) -> Features:
        source = gather_features(
            extract, num_samples=4, batch_size=batch_size, device=CPU, max_cache_bytes=max_cache_bytes
        )
        return source.batch([0, 1, 2, 3])

    whole = gathered(4)
    with room_for(2, generator._unet) as sizes:
        halved = gathered(4)
    assert sizes[:2] == [4, 2] and max(sizes[1:]) <= (2 if max_cache_bytes else 4)
    torch.testing.assert_close(halved.maps, whole.maps, atol=2e-3, rtol=2e-3)
    assert whole.attention is not None and halved.attention is not None
    torch.testing.assert_close(halved.attention, whole.attention, atol=1e-3, rtol=1e-3)


def test_a_segmenter_gives_the_scores_of_smaller_batches(backbone: Path) -> None:
    torch.manual_seed(0)
    shape = {"hidden_dim": 32, "num_queries": 5, "decoder_layers": 2, "ffn_dim": 16}
    model = build_maskformer(backbone=str(backbone), num_labels=3, matching="bipartite", **shape)
    segmenter = MaskFormerSegmenter(model, categories=("red", "green"), image_size=64, device=CPU, batch_size=4)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8) for i in range(4)]
    expected = [*segmenter.predict(images[:2]), *segmenter.predict(images[2:])]
    with room_for(2, segmenter.model) as sizes:
        scores = segmenter.predict(images)
    assert sizes == [4, 2, 2]
    assert all(np.array_equal(one, other) for one, other in zip(scores, expected, strict=True))


def test_the_pipeline_halves_its_batch_and_says_what_to_lower_for_one_image(
    checkpoint: Path, module_folder: Path
) -> None:
    pipe = GroundedPipeline.from_pretrained(checkpoint, grounding=module_folder, device="cpu")
    call = {
        "prompts": [record.prompt for record in RECORDS],
        "words": CATEGORIES,
        "seeds": [record.seed for record in RECORDS],
        "sampling": GUIDED,
    }
    expected = pipe(**call, batch_size=2)
    with room_for(4, pipe.generator._unet) as sizes:
        found = pipe(**call, batch_size=4)
    assert sizes == [8, *[4] * 4]
    assert np.array_equal(found.probs, expected.probs)
    assert all(np.array_equal(one, other) for one, other in zip(found.images, expected.images, strict=True))
    with room_for(0, pipe.generator._unet):
        with pytest.raises(
            InfrastructureError, match=r"^batch_size: no memory left for one sample: .*; lower image_size$"
        ):
            pipe(**call)
        with pytest.raises(
            InfrastructureError, match=r"^segment: no memory left: .*; lower image_size or the size of the"
        ):
            pipe.segment(expected.images[0], words=["dog"])
