"""benchmarks/stages.py: the references do the work that they are named for, no more and no less."""

import subprocess
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import pytest
from diffusers import UNet2DConditionModel
from diffusers.models.autoencoders.vae import Decoder
from torch.nn.modules.module import register_module_forward_hook
from torchvision.models.detection import MaskRCNN
from transformers import MaskFormerForInstanceSegmentation

from benchmarks._stage_cases import detect_case, protocol1_case, segmenter_case, shard_cases, zs3_case
from benchmarks._stage_subject import make_subject
from benchmarks.stages import Case, as_table, measure, no_op_repro
from diffground.data.shards import count_samples, list_shards, read_shard
from diffground.errors import UserError
from diffground.grounding.module import GroundingModule

NETWORKS = (UNet2DConditionModel, Decoder, MaskRCNN, GroundingModule, MaskFormerForInstanceSegmentation)
NUM_IMAGES = 12


@pytest.fixture(scope="module")
def subject(smoke_params, tmp_path_factory):
    return make_subject(smoke_params, tmp_path_factory.mktemp("subject"), num_images=NUM_IMAGES)


@contextmanager
def recorded():
    """Network and its batch size -> how often it ran."""
    runs = Counter()

    def keep(module, inputs, output):
        if isinstance(module, NETWORKS):
            first = inputs[0] if inputs else output.class_queries_logits
            size = len(next(iter(first.values()))) if isinstance(first, dict) else len(first)
            runs[type(module).__name__, size] += 1

    handle = register_module_forward_hook(keep)
    try:
        yield runs
    finally:
        handle.remove()


def both(case):
    with recorded() as of_ours:
        case.ours()
    with recorded() as of_bare:
        case.bare()
    return dict(of_ours), dict(of_bare)


def test_detection_is_compared_with_the_same_passes(subject):
    ours, bare = both(detect_case(subject))
    batch_size = subject.params.detector.batch_size
    assert ours == bare
    assert sum(size * num for (_, size), num in bare.items()) == NUM_IMAGES
    assert max(size for _, size in bare) <= batch_size


def test_detection_writes_all_shards_again_each_time(subject):
    case = detect_case(subject)
    case.ours()
    case.ours()
    for number in range(2):
        shards = list_shards(subject.folder / f"detected-{number}")
        assert sum(map(count_samples, shards)) == NUM_IMAGES


def test_the_training_is_compared_with_as_many_steps_on_as_many_images(subject):
    ours, bare = both(segmenter_case(subject, num_steps=3))
    assert ours == bare == {("MaskFormerForInstanceSegmentation", subject.params.segmenter.batch_size): 3}


def test_protocol_1_is_compared_with_every_pass_of_its_networks(subject):
    ours, bare = both(protocol1_case(subject))
    assert ours == bare
    assert {name for name, _ in bare} == {"UNet2DConditionModel", "Decoder", "MaskRCNN", "GroundingModule"}


def test_the_evaluation_of_segmenters_is_compared_with_the_same_passes(subject):
    ours, bare = both(zs3_case(subject))
    assert ours == bare == {("MaskFormerForInstanceSegmentation", NUM_IMAGES): 1}


def test_shards_are_compared_with_copies_of_the_same_bytes(subject):
    write, read = shard_cases(subject, num_bytes=100_000)
    write.ours()
    write.bare()
    written = (subject.folder / "written.tar").read_bytes()
    assert written == (subject.folder / "shard.tar").read_bytes() == (subject.folder / "copy.tar").read_bytes()
    samples = list(read_shard(subject.folder / "shard.tar"))
    assert sum(len(content) for sample in samples for content in sample.members.values()) >= 100_000
    (subject.folder / "copy.tar").unlink()
    read.ours()
    read.bare()
    assert (subject.folder / "copy.tar").read_bytes() == written


def test_another_detector_s_reference_is_refused(smoke_params, tmp_path):
    params = replace(smoke_params, detector=replace(smoke_params.detector, backend="transformers"))
    with pytest.raises(UserError, match=r"detector\.backend must be 'torchvision' for this benchmark"):
        make_subject(params, tmp_path, num_images=2)


def test_the_ratio_is_ours_over_the_reference():
    (found,) = measure([Case("stage", "bare", ours=lambda: None, bare=lambda: None)], repeats=1)
    assert set(found) == {"name", "reference", "time_s", "reference_s", "ratio"}
    row = {"name": "detect", "reference": "forward", "time_s": 3.0, "reference_s": 2.0, "ratio": 1.5}
    assert as_table([row], 4.25).rows == (
        ("detect", "3.00", "forward", "2.00", "1.50"),
        ("`dvc repro` with nothing to do", "4.2", "–", "–", "–"),
    )
    assert as_table([], None).rows[0][1] == "not measured"


@pytest.fixture
def repository(tmp_path):
    """One stage that has not run."""
    subprocess.run(["dvc", "init", "--no-scm", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / "dvc.yaml").write_text("stages:\n  one:\n    cmd: echo 1 > out\n    outs: [out]\n")
    return tmp_path


def test_dvc_repro_is_timed_only_where_it_has_nothing_to_do(repository):
    assert no_op_repro(repository, repeats=1) == (None, "a stage is to run; give a clone after `dvc repro`")
    assert not (repository / "out").exists()
    subprocess.run(["dvc", "repro", "--quiet"], cwd=repository, check=True)
    seconds, reason = no_op_repro(repository, repeats=1)
    assert seconds > 0 and reason == ""


def test_a_folder_without_a_pipeline_says_why_it_is_not_timed(tmp_path):
    seconds, reason = no_op_repro(tmp_path, repeats=1)
    assert seconds is None and reason.startswith("dvc repro failed: ERROR: ")
