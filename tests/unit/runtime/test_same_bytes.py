"""The components of profile smoke: two workers write, byte for byte, what one writes on as many threads as each has."""

import hashlib

import pytest
import torch

from diffground.config import load_params
from diffground.data.shards import list_shards
from diffground.detection.detector import load_detector
from diffground.detection.oracle import detect_shards
from diffground.diffusion.generate import generate_shards
from diffground.diffusion.generator import Generator
from diffground.evaluation.methods import DaamMaps, GroundingMethod, calibrate_daam, foreground_method
from diffground.evaluation.protocol1 import run_protocol1
from diffground.grounding.checkpoint import save_grounding
from diffground.grounding.fit import spec_for
from diffground.grounding.oracle import read_labelled_samples
from diffground.grounding.prediction import Grounder
from diffground.grounding.synthesize import synthesize_shards
from diffground.profile import compose_params, write_params
from diffground.prompts import GROUPS, sample_training_prompts
from diffground.runtime.device import setup_torch
from diffground.runtime.workers import Workers
from diffground.smoke import build_components
from diffground.vocabulary import load_vocabulary
from tests.unit.test_profile import CONF

CPU = torch.device("cpu")
SAMPLER = {"num_steps": 2, "guidance_scale": 2.0, "tapped_step": 1}


@pytest.fixture(scope="module")
def one_thread():
    """This process as a worker with one thread is."""
    num_threads = torch.get_num_threads()
    setup_torch(num_threads=1)
    yield
    torch.set_num_threads(num_threads)
    torch.set_deterministic_debug_mode("default")


class Stages:
    """generate, detect, synthesize and Protocol I on five prompts, in shards of two."""

    def __init__(self, folder):
        build_components(folder / "models")
        write_params(compose_params("smoke", conf=CONF), folder / "params.yaml")
        self.params = load_params(folder / "params.yaml")
        self.folder = folder
        self.vocabulary = load_vocabulary("pascal", unseen=["dog", "car"], seen=["bicycle", "cat", "person"])
        self.records = sample_training_prompts(self.vocabulary, num_one=3, num_two=2, seed=0)
        self.generator = Generator.load(
            str(folder / "models/diffusion"),
            device=CPU,
            dtype=torch.float32,
            image_size=self.params.generator.image_size,
        )
        torch.manual_seed(0)
        spec = spec_for(self.generator, self.params.grounding)
        save_grounding(folder / "grounding", spec.build(), spec, card="")

    def run(self, name, workers):
        """Shards below folder/name; returns their hashes, and the metrics of Protocol I."""
        out = self.folder / name
        generate_shards(
            self.records, out_dir=out / "generated", generator=self.generator, batch_size=2, shard_size=2,
            workers=workers, **SAMPLER,
        )  # fmt: skip
        detector = load_detector(
            backend="torchvision", checkpoint=str(self.folder / "models/detector"), mask_threshold=0.5, device=CPU
        )
        detect_shards(
            out / "generated", out / "oracle", detector=detector, detector_id="d",
            detector_names=self.vocabulary.detector_names, score_threshold=0.0, mask_threshold=0.5, batch_size=2,
            description="detect", workers=workers,
        )  # fmt: skip
        grounder = Grounder.load(self.folder / "grounding", generator=self.generator, device=CPU)
        synthesize_shards(
            self.records, out_dir=out / "synthetic", generator=self.generator, grounder=grounder, grounder_id="g",
            vocabulary=self.vocabulary, mask_threshold=0.5, batch_size=2, shard_size=2, workers=workers, **SAMPLER,
        )  # fmt: skip
        shards = [path for part in ("generated", "oracle", "synthetic") for path in list_shards(out / part)]
        hashes = {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in shards}
        return hashes, self.protocol1(out, grounder, workers)

    def protocol1(self, out, grounder, workers):
        samples = list(read_labelled_samples(generated=out / "generated", oracle=out / "oracle"))
        phrases = self.vocabulary.phrases
        maps = DaamMaps(generator=self.generator, phrases=phrases, num_steps=2, guidance_scale=2.0)
        daam = calibrate_daam(maps, samples, batch_size=2, workers=workers)
        grounding = GroundingMethod(grounder=grounder, phrases=phrases, image_size=32, mask_threshold=0.5)
        methods = {"grounding": grounding, "daam": daam, "foreground_only": foreground_method}
        result = run_protocol1(samples, methods, groups=GROUPS, batch_size=2, workers=workers)
        return {**result.metrics(), "daam_threshold": daam.threshold}


def test_two_workers_give_the_bytes_of_one(one_thread, tmp_path):
    stages = Stages(tmp_path)
    hashes, metrics = stages.run("one", None)
    with Workers(num_workers=2, num_threads=2) as workers:
        assert stages.run("two", workers) == (hashes, metrics)
    assert len(hashes) == 9
    assert len(set(hashes.values())) == 9
    assert sum(metrics["num_images"].values()) >= 2, "Protocol I had something to judge"
