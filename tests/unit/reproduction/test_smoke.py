import hashlib

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import ResNetBackbone

from diffground.detection.torchvision_backend import MaskRcnnDetector
from diffground.reproduction.smoke import IMAGE_SIZE, build_components, build_tokenizer
from diffground.vocabulary import load_vocabulary


@pytest.fixture(scope="module")
def components(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "smoke"
    build_components(folder)
    return folder


def hashes(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_two_builds_are_the_same_bytes(components, tmp_path):
    build_components(tmp_path / "smoke")
    assert len(hashes(components)) >= 12
    assert hashes(tmp_path / "smoke") == hashes(components)
    assert [path.name for path in tmp_path.iterdir()] == ["smoke"]


def test_a_complete_folder_is_left_alone_and_the_random_state_too(components):
    before = {path: path.stat().st_mtime_ns for path in components.rglob("*")}
    state = torch.random.get_rng_state()
    build_components(components)
    assert {path: path.stat().st_mtime_ns for path in components.rglob("*")} == before
    assert torch.equal(torch.random.get_rng_state(), state)


def test_diffusers_loads_the_pipeline_and_samples(components):
    pipeline = StableDiffusionPipeline.from_pretrained(components / "diffusion", safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        ["a photograph of a dog"] * 2, num_inference_steps=2, height=IMAGE_SIZE, width=IMAGE_SIZE, output_type="np"
    ).images
    assert images.shape == (2, IMAGE_SIZE, IMAGE_SIZE, 3)
    assert images.std() > 0.05


def test_the_longest_prompt_fits():
    tokenizer = build_tokenizer()
    prompt = "a photograph of a dining table and a potted plant"
    assert len(tokenizer(prompt).input_ids) <= tokenizer.model_max_length


def test_the_detector_finds_each_category_in_some_image_with_masks_that_differ(components):
    detector = MaskRcnnDetector.load(str(components / "detector"), mask_threshold=0.5, device=torch.device("cpu"))
    images = np.random.default_rng(0).integers(0, 256, size=(8, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    found = detector.detect(images)
    assert len(found) == 8
    labels = {label for instances in found for label in instances.labels}
    assert labels == set(load_vocabulary("pascal", unseen=("dog",)).detector_names.values())
    areas = np.concatenate([instances.masks.mean(axis=(1, 2)) for instances in found])
    assert np.ptp(areas) > 0.02


def test_transformers_loads_the_backbone_with_four_scales(components):
    backbone = ResNetBackbone.from_pretrained(components / "backbone")
    maps = backbone(torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE)).feature_maps
    assert [tuple(m.shape[1:]) for m in maps] == [(8, 8, 8), (8, 4, 4), (16, 2, 2), (16, 1, 1)]
