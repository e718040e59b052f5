"""The components of profile smoke: two workers write, byte for byte, what one writes on as many threads as each has."""

import hashlib

import numpy as np
import pytest
import torch

from diffground.baselines.dense_crf import DenseCrf
from diffground.baselines.pseudo_labels import LabelRule, calibrate_threshold, plan_weak_images, pseudo_label_shards
from diffground.baselines.text2mask import Text2Mask
from diffground.data.labelled import read_labelled_samples
from diffground.data.shards import list_shards
from diffground.data.voc import VocDataset, VocItem, write_voc
from diffground.detection.load import load_detector
from diffground.detection.oracle import detect_shards
from diffground.diffusion.generate import generate_shards
from diffground.diffusion.generator import Generator
from diffground.diffusion.sampling import Sampling
from diffground.evaluation.attention_methods import DaamMaps, RefinedMaps, Text2MaskMaps, calibrate
from diffground.evaluation.grounding_method import GroundingMethod
from diffground.evaluation.methods import foreground_method
from diffground.evaluation.protocol1 import run_protocol1
from diffground.grounding.checkpoint import save_grounding
from diffground.grounding.fit import spec_for
from diffground.grounding.prediction import Grounder
from diffground.grounding.synthesize import synthesize_shards
from diffground.prompts import GROUPS, sample_training_prompts
from diffground.reproduction.composition import compose_params
from diffground.reproduction.config import load_params
from diffground.reproduction.smoke import build_components
from diffground.runtime.device import setup_torch
from diffground.runtime.workers import Workers
from diffground.vocabulary import load_vocabulary
from tests.unit.reproduction.test_composition import CONF

CPU = torch.device("cpu")
SAMPLING = Sampling(2, 2.0, 1)


@pytest.fixture(scope="module")
def one_thread():
    """This process as a worker with one thread is."""
    num_threads = torch.get_num_threads()
    setup_torch(num_threads=1)
    yield
    torch.set_num_threads(num_threads)
    torch.set_deterministic_debug_mode("default")


class Stages:
    """generate, detect, synthesize and Protocol I on ten prompts in shards of four, text2mask on five images in shards
    of two."""

    def __init__(self, folder):
        build_components(folder / "models")
        (folder / "params.yaml").write_text(compose_params("smoke", conf=CONF))
        self.params = load_params(folder / "params.yaml")
        self.folder = folder
        self.vocabulary = load_vocabulary("pascal", unseen=["dog", "car"], seen=["bicycle", "cat", "person"])
        self.records = sample_training_prompts(self.vocabulary, num_one=6, num_two=4, seed=0)
        self.generator = Generator.load(
            str(folder / "models/diffusion"),
            device=CPU,
            dtype=torch.float32,
            image_size=self.params.generator.image_size,
        )
        torch.manual_seed(0)
        spec = spec_for(self.generator, self.params.grounding, sampling=Sampling(4, 3.0, 1))
        save_grounding(folder / "grounding", spec.build(), spec, card="")
        rng = np.random.default_rng(0)
        write_voc(
            folder / "real",
            "train",
            (
                VocItem(id=f"{i}", image=rng.integers(0, 256, (32, 40, 3), dtype=np.uint8), label=label, objects=label)
                for i in range(5)
                for label in [np.full((32, 40), self.vocabulary.index("dog") + 1, dtype=np.uint8)]
            ),
        )

    def run(self, name, workers):
        """Shards below folder/name; returns their hashes, and the metrics of Protocol I."""
        out = self.folder / name
        generate_shards(
            self.records,
            out_dir=out / "generated",
            generator=self.generator,
            batch_size=2,
            shard_size=4,
            workers=workers,
            sampling=SAMPLING,
        )
        detector = load_detector(
            backend="torchvision", checkpoint=str(self.folder / "models/detector"), mask_threshold=0.5, device=CPU
        )
        detect_shards(
            out / "generated",
            out / "oracle",
            detector=detector,
            detector_id="d",
            detector_names=self.vocabulary.detector_names,
            score_threshold=0.0,
            mask_threshold=0.5,
            batch_size=2,
            description="detect",
            workers=workers,
        )
        grounder = Grounder.load(self.folder / "grounding", generator=self.generator, device=CPU)
        synthesize_shards(
            self.records,
            out_dir=out / "synthetic",
            generator=self.generator,
            grounder=grounder,
            grounder_id="g",
            vocabulary=self.vocabulary,
            mask_threshold=0.5,
            batch_size=2,
            shard_size=4,
            workers=workers,
            sampling=SAMPLING,
        )
        metrics = {**self.protocol1(out, grounder, workers), "text2mask_threshold": self.text2mask(out, workers)}
        parts = ("generated", "oracle", "synthetic", "pseudo")
        shards = [path for part in parts for path in list_shards(out / part)]
        return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in shards}, metrics

    def text2mask_method(self):
        return Text2Mask(self.generator, noise_frac=0.1, word_sizes=(), num_noises=1, power=1, max_affinity_size=8)

    def text2mask(self, out, workers):
        method = self.text2mask_method()
        samples = read_labelled_samples(generated=out / "generated", oracle=out / "oracle")
        shared = {"vocabulary": self.vocabulary, "seed": 0, "batch_size": 2, "workers": workers}
        threshold = calibrate_threshold(method, samples, num_calibration=5, **shared)
        data = VocDataset(self.folder / "real", "train")
        images = plan_weak_images(data, vocabulary=self.vocabulary, tokenizer=self.generator.tokenizer, num_images=5)
        rule = LabelRule(threshold, uncertain_band=0.0, crf=DenseCrf(1, 3.0, 0.25, 13.0))
        pseudo_label_shards(data, images, out_dir=out / "pseudo", method=method, rule=rule, shard_size=2, **shared)
        return threshold

    def protocol1(self, out, grounder, workers):
        samples = list(read_labelled_samples(generated=out / "generated", oracle=out / "oracle"))
        baselines = {}
        for maps in (
            DaamMaps(self.generator, self.vocabulary, SAMPLING),
            RefinedMaps(self.generator, self.vocabulary, max_affinity_size=8),
            Text2MaskMaps(self.text2mask_method(), self.vocabulary, seed=0),
        ):
            name = type(maps).__name__
            found = calibrate(maps, samples, image_size=32, batch_size=2, description=name, workers=workers)
            baselines |= {f"{name}{i}": method for i, method in enumerate(found) if method}
        grounding = GroundingMethod(grounder=grounder, vocabulary=self.vocabulary, image_size=32, mask_threshold=0.5)
        methods = {"grounding": grounding, **baselines, "foreground_only": foreground_method}
        result = run_protocol1(samples, methods, groups=GROUPS, batch_size=2, workers=workers)
        return {**result.metrics(), "settings": {name: method.settings for name, method in baselines.items()}}


def test_two_workers_give_the_bytes_of_one(one_thread, tmp_path):
    stages = Stages(tmp_path)
    hashes, metrics = stages.run("one", None)
    with Workers(num_workers=2, num_threads=2) as workers:
        assert stages.run("two", workers) == (hashes, metrics)
    assert len(hashes) == 12
    assert len(set(hashes.values())) == 12
    assert sum(metrics["num_images"].values()) >= 2, "Protocol I had something to judge"
