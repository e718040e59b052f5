"""Shards and checkpoints from elsewhere: what could write outside or run code is refused in one line, and never run."""

import io
import os
import pickle
import shutil
import tarfile

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from diffground.contexts.llm import LanguageModel
from diffground.data.shards import Sample, count_samples, read_shard, write_shard
from diffground.detection.load import load_detector
from diffground.diffusion.generator import Generator
from diffground.diffusion.textual_inversion import add_textual_inversion
from diffground.errors import UserError
from diffground.grounding.checkpoint import GroundingSpec, Sampling, load_grounding, save_grounding
from diffground.grounding.import_released import read_released
from diffground.reproduction.smoke import build_components, build_pipeline, build_tokenizer
from diffground.segmentation.maskformer import MaskFormerSegmenter, build_maskformer
from diffground.training.resume import TrainingState, Unfinished

CPU = torch.device("cpu")


class Malicious:
    """Unpickled, it makes a file."""

    def __init__(self, canary):
        self.canary = str(canary)

    def __reduce__(self):
        return os.mkdir, (self.canary,)


@pytest.fixture
def canary(tmp_path):
    yield tmp_path / "canary"
    assert not (tmp_path / "canary").exists(), "the pickle was run"


def test_the_canary_sings(tmp_path):
    pickle.loads(pickle.dumps(Malicious(tmp_path / "made")))
    assert (tmp_path / "made").is_dir()


def refuse(path, message):
    for read in (lambda: list(read_shard(path)), lambda: count_samples(path)):
        with pytest.raises(UserError, match=message) as caught:
            read()
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(f"{path}: member ")


def plant(path, info, content=b""):
    """A shard whose second sample is `info`."""
    info.size = len(content)
    first = tarfile.TarInfo("train-000000.image.png")
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(first, io.BytesIO())
        archive.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize(
    "name",
    ["../train-000001.image.png", "/etc/passwd.png", "..", "../..", "a/../b.png", "./a.png", ".a.png", "a//b.png"],
)
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    plant(tmp_path / "x.tar", tarfile.TarInfo(name))
    refuse(tmp_path / "x.tar", "member 2 .* is not of a shard; delete the file")


def test_a_long_name_in_two_parts_is_refused(tmp_path):
    plant(tmp_path / "x.tar", tarfile.TarInfo("../" * 40 + "train-000001.image.png"))
    refuse(tmp_path / "x.tar", r"member 2 '\.\./.* is not of a shard")


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.DIRTYPE,
        tarfile.CONTTYPE,
        tarfile.GNUTYPE_SPARSE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
    ],
)
def test_links_devices_folders_and_extended_headers_are_refused(tmp_path, kind):
    info = tarfile.TarInfo("train-000001.image.png")
    info.type, info.linkname = kind, "/etc/passwd"
    plant(tmp_path / "x.tar", info)
    refuse(tmp_path / "x.tar", "member 2 .* is not of a shard")


def test_an_extended_header_cannot_rename_a_member(tmp_path):
    info = tarfile.TarInfo("train-000001.image.png")
    info.pax_headers = {"path": "../../outside.png"}
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO())
    refuse(tmp_path / "x.tar", "member 1 .* is not of a shard")


@pytest.mark.parametrize("size", [b"-0000000512", b"0o000000001", b"0000_000001", b"00000000009", b"\x80" + b"\0" * 11])
def test_a_size_that_is_no_octal_number_is_refused(tmp_path, size):
    plant(tmp_path / "x.tar", tarfile.TarInfo("train-000001.image.png"))
    content = bytearray((tmp_path / "x.tar").read_bytes())
    header = content[512:1024]
    header[124:136] = size.ljust(12, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    content[512:1024] = header
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.tar: truncated at member 2"):
        count_samples(tmp_path / "x.tar")


@pytest.mark.parametrize("suffix", ["pkl", "pickle", "pt", "pth", "bin", "ckpt"])
def test_a_pickle_in_a_shard_is_refused(tmp_path, canary, suffix):
    plant(tmp_path / "x.tar", tarfile.TarInfo(f"train-000001.{suffix}"), pickle.dumps(Malicious(canary)))
    refuse(tmp_path / "x.tar", f"member 2 'train-000001.{suffix}' is a pickle, which is never loaded")
    with pytest.raises(ValueError, match="not a pickle"):
        write_shard(tmp_path / "y.tar", [Sample(key="a", members={suffix: b""})])


def object_array(canary):
    stream = io.BytesIO()
    np.save(stream, np.array([Malicious(canary)], dtype=object), allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["objects", "objects in a record", "bare pickle", "bare pickle, named as an array"])
def test_a_pickle_in_an_array_is_refused(tmp_path, canary, kind):
    content = object_array(canary)
    if kind == "objects in a record":
        content = content.replace(b"'|O'", b"[('a', '|O')]")
    elif kind != "objects":
        content = pickle.dumps(Malicious(canary))
    if kind == "bare pickle, named as an array":
        content = b"\x93NUMPY\x03\x00" + content
    plant(tmp_path / "x.tar", tarfile.TarInfo("train-000001.latent.npy"), content)
    with pytest.raises(UserError, match=r"x\.tar: member 2 'train-000001\.latent\.npy' holds a pickle") as caught:
        list(read_shard(tmp_path / "x.tar"))
    assert "\n" not in str(caught.value)


def test_an_array_of_numbers_is_read(tmp_path):
    stream = io.BytesIO()
    np.save(stream, np.ones((2, 3), np.float16))
    write_shard(tmp_path / "x.tar", [Sample(key="a", members={"latent.npy": stream.getvalue()})])
    assert len(list(read_shard(tmp_path / "x.tar"))) == 1


@pytest.fixture(scope="module")
def components(tmp_path_factory):
    folder = tmp_path_factory.mktemp("components") / "models"
    build_components(folder)
    return folder


def with_pickles(folder, out, canary):
    """A copy of a model folder, each weights file a pickle that would run code, under the name a pickle has."""
    shutil.copytree(folder, out)
    weights = list(out.rglob("*.safetensors"))
    assert weights
    names = {"diffusion_pytorch_model": "diffusion_pytorch_model.bin", "model": "pytorch_model.bin"}
    for path in weights:
        path.unlink()
        torch.save({"weight": Malicious(canary)}, path.with_name(names[path.stem]))
    return str(out)


def load_generator(folder):
    return Generator.load(folder, device=CPU, dtype=torch.float32, image_size=32)


def load_torchvision(folder):
    return load_detector(backend="torchvision", checkpoint=folder, mask_threshold=0.5, device=CPU)


def load_backbone(folder):
    return build_maskformer(
        backbone=folder, num_labels=3, matching="fixed", hidden_dim=32, num_queries=3, decoder_layers=1, ffn_dim=32
    )


@pytest.mark.parametrize(
    ("part", "load"), [("diffusion", load_generator), ("detector", load_torchvision), ("backbone", load_backbone)]
)
def test_a_pickled_checkpoint_is_refused(components, tmp_path, canary, part, load):
    load(str(components / part))
    with pytest.raises(UserError) as caught:
        load(with_pickles(components / part, tmp_path / "model", canary))
    assert "\n" not in str(caught.value)


def test_a_pickled_language_model_is_refused(tmp_path, canary):
    config = GPT2Config(vocab_size=200, n_positions=32, n_embd=8, n_layer=1, n_head=1)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "sound")
    build_tokenizer().save_pretrained(tmp_path / "sound")
    LanguageModel.load(str(tmp_path / "sound"), device=CPU)
    with pytest.raises(UserError) as caught:
        LanguageModel.load(with_pickles(tmp_path / "sound", tmp_path / "model", canary), device=CPU)
    assert "\n" not in str(caught.value)


def save_tiny_grounding(folder, components):
    spec = GroundingSpec(
        feature_channels={4: 8},
        text_dim=5,
        num_attention_maps=0,
        reduced_channels=(4,),
        embed_dim=8,
        num_layers=1,
        num_heads=2,
        ffn_dim=16,
        patch_size=2,
        tokens_at="features",
        branches="conditional",
        gain_timesteps=(),
        generator_id="abc",
        image_size=32,
        timestep=1,
        sampling=Sampling(3, 3.0, 1),
    )
    save_grounding(folder, spec.build(), spec, card="")


def save_tiny_segmenter(folder, components):
    model = load_backbone(str(components / "backbone"))
    MaskFormerSegmenter(model, categories=("a", "b"), image_size=64, device=CPU).save(folder, card="")


def load_segmenter(folder):
    return MaskFormerSegmenter.load(folder, device=CPU)


@pytest.mark.parametrize(
    ("save", "load", "told"),
    [
        (save_tiny_grounding, load_grounding, "not a complete grounding module"),
        (save_tiny_segmenter, load_segmenter, "not a complete segmenter"),
    ],
)
def test_a_pickled_model_of_ours_is_refused(components, tmp_path, canary, save, load, told):
    folder = tmp_path / "model"
    save(folder, components)
    load(folder)
    torch.save({"weight": Malicious(canary)}, folder / "model.safetensors")
    with pytest.raises(UserError, match=told) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        load(folder)


def test_a_pickled_state_of_a_training_is_dropped(tmp_path, canary, caplog):
    unfinished = Unfinished(tmp_path / "state", fingerprint={}, every_s=1)
    unfinished.save(TrainingState(tensors={"weight": torch.zeros(2)}, values={}))
    assert unfinished.load() is not None
    torch.save({"weight": Malicious(canary)}, tmp_path / "state/state.safetensors")
    assert unfinished.load() is None
    assert "is damaged" in caplog.text
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"])
def test_a_pickle_named_safetensors_is_refused(components, tmp_path, canary, name):
    shutil.copytree(components / "diffusion", tmp_path / "model")
    torch.save({"weight": Malicious(canary)}, tmp_path / "model" / f"{name}.safetensors")
    with pytest.raises(UserError, match="does not load as a Stable Diffusion pipeline"):
        load_generator(str(tmp_path / "model"))


@pytest.mark.parametrize("name", ["learned.bin", "learned.pt", "learned.safetensors"])
def test_a_pickled_personal_word_is_refused(tmp_path, canary, name):
    torch.save({"<rex>": Malicious(canary)}, tmp_path / name)
    with pytest.raises(UserError):
        add_textual_inversion(build_pipeline(), tmp_path / name)


@pytest.mark.parametrize("pickled", ["torch", "pickle"])
def test_a_pickled_release_is_refused(tmp_path, canary, pickled):
    path = tmp_path / "grounding_module.pth"
    if pickled == "torch":
        torch.save({"to_q.weight": Malicious(canary)}, path)
    else:
        path.write_bytes(pickle.dumps(Malicious(canary)))
    with pytest.raises(UserError, match="never pickled code"):
        read_released(path)
