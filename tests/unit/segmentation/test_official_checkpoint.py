"""Segmenters go to the authors' checkpoints and come back; what is no such checkpoint is one line."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import ResNetBackbone, ResNetConfig

from diffground.cli.main import main
from diffground.segmentation.maskformer import MaskFormerSegmenter, build_maskformer
from diffground.segmentation.official_checkpoint import export_maskformer, import_maskformer
from diffground.vocabulary import load_vocabulary
from tests.unit.state_changes import with_entry, without

PASCAL_CATEGORIES = load_vocabulary("pascal").categories

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")
IMAGES = list(np.random.default_rng(0).integers(0, 256, (2, 70, 90, 3), dtype=np.uint8))
LAYER = "sem_seg_head.predictor.transformer.decoder.layers.1"


class Malicious:
    """Unpickled, it makes a file."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.made}",)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """segmenter/, a ResNet-50 of an eighth of the usual width, model.pth and model.yaml, exported from it."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    ResNetBackbone(
        ResNetConfig(
            embedding_size=8,
            hidden_sizes=[32, 64, 128, 256],
            depths=[3, 4, 6, 3],
            layer_type="bottleneck",
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )
    ).save_pretrained(folder / "backbone")
    model = build_maskformer(
        backbone=str(folder / "backbone"),
        num_labels=21,
        matching="bipartite",
        hidden_dim=32,
        num_queries=7,
        decoder_layers=2,
        ffn_dim=48,
    )
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.ndim == 1 and "criterion" not in name:  # norms and biases, which start out all the same
                tensor.copy_(torch.rand(tensor.shape) + 0.5 * ("weight" in name or "var" in name))
    segmenter = MaskFormerSegmenter(model, categories=PASCAL_CATEGORIES, image_size=64, device=CPU)
    segmenter.save(folder / "segmenter", card="")
    export_maskformer(folder / "segmenter", folder / "model.pth")
    return folder


@pytest.fixture
def place(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with params.yaml and the checkpoint, no config.yaml."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copy(models / "model.pth", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[object, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    told = capsys.readouterr()
    return ended.value.code, told.out, told.err


def weights_of(folder: Path) -> dict[str, Tensor]:
    """Without the numbers of batches that norms have seen, which no prediction reads."""
    weights = load_file(folder / "model.safetensors")
    return {name: tensor for name, tensor in weights.items() if "num_batches_tracked" not in name}


def state_of(file: Path) -> dict[str, Tensor]:
    return torch.load(file, weights_only=True)["model"]


def test_there_and_back_by_the_commands(models: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "export-maskformer", models / "segmenter", "sent/there.pth")
    assert (code, out, err) == (0, "sent/there.pth: written\nsent/there.yaml: written\n", "")
    shutil.copy("sent/there.yaml", "sent/config.yaml")
    code, out, err = call(capsys, "import-maskformer", "sent/there.pth", "back")
    assert (code, err) == (0, "")
    assert out.startswith("back: MaskFormer, ResNet-50, 7 queries, 21 classes; ")
    assert out.endswith("was checked in config.yaml\n")
    assert sorted(path.name for path in Path("back").iterdir()) == ["README.md", "config.json", "model.safetensors"]
    before, after = weights_of(models / "segmenter"), weights_of(Path("back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    trained, back = (MaskFormerSegmenter.load(folder, device=CPU) for folder in (models / "segmenter", Path("back")))
    assert (back.categories, back.image_size) == (PASCAL_CATEGORIES, 96)  # those of params.yaml
    back.image_size = 64
    for expected, found in zip(trained.predict(IMAGES), back.predict(IMAGES), strict=True):
        assert found.std() > 0
        np.testing.assert_array_equal(found, expected)


def test_a_checkpoint_as_training_leaves_it_is_read(place: Path) -> None:
    state = state_of(place / "model.pth")
    counters = {"backbone.stem.conv1.norm.num_batches_tracked": torch.tensor(9)}
    halved = {name: tensor.half() for name, tensor in state.items()}
    training = {"optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}, "scheduler": {"last_epoch": 9}}
    torch.save({"model": {**halved, **counters}, **training, "iteration": 9}, place / "model_final.pth")
    told = import_maskformer(place / "model_final.pth", place / "imported", categories=PASCAL_CATEGORIES, image_size=64)
    assert "not checked, because no config.yaml lies" in told
    weights = weights_of(place / "imported")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    torch.testing.assert_close(
        weights["class_predictor.weight"], state["sem_seg_head.predictor.class_embed.weight"], rtol=1e-3, atol=1e-3
    )
    card = (place / "imported" / "README.md").read_text()
    assert "not checked" in card and "MODEL.PIXEL_MEAN: [127.5, 127.5, 127.5]" in card


def test_the_authors_head_gets_the_weights_as_of_its_own_version(models: Path) -> None:
    """MaskFormerHead._load_from_state_dict renames all but the predictor's weights below version 2."""
    seen = []

    class Head(nn.Module):
        _version = 2

        def _load_from_state_dict(self, state, prefix, local_metadata, *rest):  # type: ignore[no-untyped-def]
            seen.append((prefix, local_metadata.get("version")))

    model = nn.Module()
    model.sem_seg_head = Head()
    model.load_state_dict(state_of(models / "model.pth"), strict=False)
    assert seen == [("sem_seg_head.", 2)]


def test_the_settings_build_the_network_that_the_weights_are_of(models: Path) -> None:
    settings = yaml.safe_load((models / "model.yaml").read_text())
    assert (settings["VERSION"], settings["INPUT"]) == (2, {"FORMAT": "RGB"})
    model = settings["MODEL"]
    assert model["RESNETS"]["DEPTH"] == 50 and model["RESNETS"]["STRIDE_IN_1X1"] is False
    assert model["MASK_FORMER"]["NUM_OBJECT_QUERIES"] == 7 and model["MASK_FORMER"]["DIM_FEEDFORWARD"] == 48
    assert model["SEM_SEG_HEAD"]["NUM_CLASSES"] == 21
    assert (model["PIXEL_MEAN"], model["PIXEL_STD"]) == ([127.5] * 3, [63.75] * 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("backbone.stem.conv1.weight"), "'backbone.stem.conv1.weight' is missing; give a .pth"),
        (without("backbone.res3.1.conv2.norm.weight"), "'backbone.res3.1.conv2.norm.weight' is missing; give a .pth"),
        (lambda state: {}, "'sem_seg_head.predictor.query_embed.weight' is missing; give a .pth"),
        (
            with_entry("sem_seg_head.pixel_decoder.input_proj.weight", torch.zeros(2)),
            "'sem_seg_head.pixel_decoder.input_proj.weight' is no weight of such a network;",
        ),
        (with_entry("a\nb", torch.zeros(2)), "'a\\nb' is no weight"),
        (
            with_entry(f"{LAYER}.self_attn.in_proj_weight", torch.zeros(95, 32)),
            f"'{LAYER}.self_attn.in_proj_weight' must have shape (96, 32), has (95, 32);",
        ),
        (
            with_entry("sem_seg_head.predictor.query_embed.weight", torch.zeros(7, 20)),
            "must have a decoder width that is a multiple of 8, and one of the pixel decoder of 32, has 20 and 32;",
        ),
        (with_entry("sem_seg_head.predictor.query_embed.weight", torch.zeros(0, 0)), "must hold finite numbers;"),
        (
            with_entry("sem_seg_head.predictor.class_embed.weight", torch.zeros(151, 32)),
            "has 150 classes, must have 21: the background and the 20 categories of params.yaml;",
        ),
        (
            lambda state: {name: tensor for name, tensor in state.items() if not name.startswith("backbone.res4.5.")},
            "the authors' MaskFormer needs a ResNet-18, 34, 50, 101 or 152, got one of bottleneck blocks [3, 4, 5, 3]",
        ),
        (with_entry(f"{LAYER}.norm1.bias", torch.full((32,), torch.nan)), "must hold finite numbers;"),
        (with_entry(f"{LAYER}.norm1.bias", np.zeros(32).tolist()), "must be a dense float tensor, is list;"),
        (lambda state: list(state), "must be a state dict (name -> tensor), is a list;"),
    ],
)
def test_what_is_no_such_checkpoint_is_one_line(
    change: Callable[[dict[str, Any]], Any], message: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": change(state_of(place / "model.pth"))}, place / "changed.pth")
    code, _, err = call(capsys, "import-maskformer", "changed.pth", "imported")
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith("error: changed.pth: ")
    assert message in line
    assert not Path("imported").exists()


def test_a_pickle_is_refused_and_not_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": {**state_of(place / "model.pth"), "extra": Malicious(place / "made")}}, "pickle.pth")
    (place / "text.pth").write_text("no weights")
    for name, reason in (("pickle.pth", "it refers to posix.system"), ("text.pth", "it is damaged")):
        code, _, err = call(capsys, "import-maskformer", name, "imported")
        assert code == 2
        (line,) = err.splitlines()
        assert line.startswith(f"error: {name}: must hold plain tensors only, never pickled code ({reason}")
    assert not (place / "made").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"MODEL": {"PIXEL_MEAN": [123.675, 116.28, 103.53]}}, "MODEL.PIXEL_MEAN must be [127.5, 127.5, 127.5], is [1"),
        ({"MODEL": {"RESNETS": {"STRIDE_IN_1X1": True}}}, "MODEL.RESNETS.STRIDE_IN_1X1 must be False, is True;"),
        ({"MODEL": {"MASK_FORMER": {"NHEADS": 4}}}, "MODEL.MASK_FORMER.NHEADS must be 8, is 4;"),
        ({"INPUT": {"FORMAT": "BGR"}}, "INPUT.FORMAT must be RGB, is BGR;"),
        ({"INPUT": None}, "INPUT.FORMAT must be RGB, is not set;"),
    ],
)
def test_settings_under_which_the_weights_would_predict_something_else_are_refused(
    change: dict[str, Any], message: str, models: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = yaml.safe_load((models / "model.yaml").read_text())
    Path("config.yaml").write_text(yaml.safe_dump(merged(settings, change)))
    code, _, err = call(capsys, "import-maskformer", "model.pth", "imported")
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith(f"error: config.yaml: {message}")
    assert not Path("imported").exists()


def merged(settings: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    return {
        key: merged(settings[key], change[key]) if isinstance(change.get(key), dict) else change.get(key, settings[key])
        for key in settings
    }


def test_what_is_missing_or_taken_is_named(models: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "taken").mkdir()
    (place / "taken" / "config.json").write_text("mine")
    (place / "taken.yaml").write_text("mine")
    for arguments, message in (
        (("import-maskformer", "none.pth", "imported"), "none.pth: no such file; give a .pth"),
        (("import-maskformer", "model.pth", "taken"), "taken: holds a model already; delete it or name another"),
        (("import-maskformer", "model.pth", "model.pth"), "model.pth: must be a folder, is a file;"),
        (("export-maskformer", "none", "new.pth"), "none: no segmenter (config.json is missing)"),
        (("export-maskformer", models / "segmenter", "model.pth"), "model.pth: exists already; delete it"),
        (("export-maskformer", models / "segmenter", "taken.pth"), "taken.yaml: exists already; delete it"),
        (("export-maskformer", models / "segmenter", "new.pkl"), "new.pkl: must end in .pth"),
    ):
        code, _, err = call(capsys, *arguments)
        assert code == 2
        assert err.startswith(f"error: {message}")
        assert len(err.splitlines()) == 1
    assert not (place / "new.pth").exists()
    assert {(place / name).read_text() for name in ("taken/config.json", "taken.yaml")} == {"mine"}


def test_a_backbone_that_detectron2_does_not_build_is_not_sent(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = build_maskformer(
        backbone=str(ROOT / "models/mini/backbone"),
        num_labels=21,
        matching="fixed",
        hidden_dim=32,
        num_queries=21,
        decoder_layers=1,
        ffn_dim=16,
    )
    MaskFormerSegmenter(model, categories=PASCAL_CATEGORIES, image_size=64, device=CPU).save(Path("mini"), card="")
    code, _, err = call(capsys, "export-maskformer", "mini", "mini.pth")
    assert code == 2
    assert err.startswith("error: mini: segmenter.backbone: the authors' MaskFormer needs a ResNet-18")
    assert not Path("mini.pth").exists() and not Path("mini.yaml").exists()
