"""The detectron2 backend: its files, its errors; with detectron2 installed, a detector with random weights."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from diffground.detection.detectron2_files import find_weights, load_weights, read_categories, read_weights, zoo_config
from diffground.detection.load import load_detector
from diffground.errors import UserError

CPU = torch.device("cpu")
IS_INSTALLED = find_spec("detectron2") is not None
ZOO = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(f"_BASE_: {ZOO}\nINPUT:\n  MIN_SIZE_TEST: 64\n")
    save_file({"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, tmp_path / "model.safetensors")
    return tmp_path


def _load(folder: Path) -> object:
    return load_detector(backend="detectron2", checkpoint=str(folder), mask_threshold=0.5, device=CPU)


def _message(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        _load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.skipif(IS_INSTALLED, reason="says how to install what is installed here")
def test_without_detectron2_one_line_says_how_to_install_it(folder: Path) -> None:
    message = _message(folder)
    assert message.startswith("detector.backend 'detectron2' needs detectron2")
    assert "git+https://github.com/facebookresearch/detectron2.git" in message


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert "nothing': no such folder" in _message(tmp_path / "nothing")


def test_a_folder_without_config_is_told_what_to_write(folder: Path) -> None:
    (folder / "config.yaml").unlink()
    assert f"'_BASE_: {ZOO}'" in _message(folder)


def test_the_model_zoo_s_pickle_is_never_loaded(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model_final_f10217.pkl")
    assert "the model zoo's .pkl is a pickle, which is never loaded" in _message(folder)


def test_of_several_weights_safetensors_go_first_and_two_are_refused(folder: Path) -> None:
    (folder / "model_final.pth").write_bytes(b"")
    assert find_weights(folder).name == "model.safetensors"
    save_file({"weight": torch.ones(1)}, folder / "other.safetensors")
    assert "must have one weights file, got model.safetensors, other.safetensors" in _message(folder)


def test_a_zoo_config_is_taken_apart_and_a_file_is_left_to_detectron2(folder: Path) -> None:
    config = folder / "config.yaml"
    assert zoo_config(config) == (ZOO, {"INPUT": {"MIN_SIZE_TEST": 64}})
    (folder / "base.yaml").write_text("MODEL: {}\n")
    config.write_text("_BASE_: base.yaml\n")
    assert zoo_config(config) == (None, {})
    config.write_text("MODEL:\n  MASK_ON: true\n")
    assert zoo_config(config) == (None, {})


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", "x: !!python/object/apply:os.getcwd []\n"])
def test_a_config_that_is_no_plain_yaml_is_refused(text: str, folder: Path) -> None:
    (folder / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml") as caught:
        zoo_config(folder / "config.yaml")
    assert "\n" not in str(caught.value)


def test_categories_are_the_lines_of_their_file_and_none_without_it(folder: Path) -> None:
    assert read_categories(folder) is None
    (folder / "categories.txt").write_text("dog\r\npotted plant \nälg\n", encoding="utf-8")
    assert read_categories(folder) == ("dog", "potted plant", "älg")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"dog\n\ncat\n", "line 2 is empty; write one category per line"),
        (b"dog\ncat\ndog\n", "line 3 repeats 'dog'; write one category per line"),
        (b"\xff\xfe", "cannot be read"),
    ],
    ids=["empty", "repeated", "not UTF-8"],
)
def test_categories_that_name_no_class_are_refused(content: bytes, message: str, folder: Path) -> None:
    (folder / "categories.txt").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_categories(folder)
    assert str(caught.value).startswith(f"{folder}/categories.txt: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("nested", [True, False])
def test_a_pth_is_read_with_and_without_what_training_adds(nested: bool, tmp_path: Path) -> None:
    weights = {"weight": torch.rand(2, 3)}
    torch.save({"model": weights, "iteration": 7} if nested else weights, tmp_path / "model.pth")
    read = read_weights(tmp_path / "model.pth")
    assert list(read) == ["weight"]
    assert torch.equal(read["weight"], weights["weight"])


class _Opens:
    """Unpickled without restrictions, it would call open()."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("content", [{"model": {"weight": np.ones(2)}}, {"model": "text"}, [torch.ones(1)]], ids=str)
def test_a_pth_of_other_things_than_tensors_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(UserError, match=r"safetensors\.torch\.save_file") as caught:
        read_weights(tmp_path / "model.pth")
    assert "\n" not in str(caught.value)


def test_code_in_a_pth_is_not_run(tmp_path: Path) -> None:
    torch.save({"model": _Opens(tmp_path / "opened")}, tmp_path / "model.pth")
    with pytest.raises(UserError, match=r"plain tensors only, never pickled code \(it refers to io\.open"):
        read_weights(tmp_path / "model.pth")
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_truncated_weights_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if path.suffix == ".pth":
        torch.save({"weight": torch.rand(100)}, path)
    else:
        save_file({"weight": torch.rand(100)}, path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match="damaged"):
        read_weights(path)


def _model() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    return model.requires_grad_(False)


def _weights() -> dict[str, torch.Tensor]:
    tensors = {n: torch.rand(t.shape) for n, t in _model().state_dict().items() if t.is_floating_point()}
    return {**tensors, "pixel_mean": torch.ones(3), "proposal_generator.anchor_generator.cell_anchors.0": torch.ones(1)}


def test_weights_are_loaded_without_what_the_model_computes(tmp_path: Path) -> None:
    weights, model = _weights(), _model()
    save_file(weights, tmp_path / "model.safetensors")
    load_weights(model, tmp_path / "model.safetensors")
    for name in ("0.weight", "0.bias", "1.running_mean"):
        assert torch.equal(model.state_dict()[name], weights[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.weight": None}, "1 weights are missing and 0 are not the model's, '0.weight' among them"),
        ({"2.weight": torch.ones(1)}, "0 weights are missing and 1 are not the model's, '2.weight' among them"),
        ({"0.weight": torch.ones(5, 5)}, "size mismatch for 0.weight"),
    ],
    ids=["missing", "unknown", "shape"],
)
def test_weights_that_do_not_fit_are_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    weights = {name: tensor for name, tensor in {**_weights(), **change}.items() if tensor is not None}
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=message) as caught:
        load_weights(_model(), tmp_path / "model.safetensors")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not IS_INSTALLED, reason="needs detectron2")
def test_a_model_of_the_zoo_with_random_weights_detects(folder: Path) -> None:
    from detectron2 import model_zoo
    from detectron2.modeling import build_model

    (folder / "config.yaml").write_text(
        f"_BASE_: {ZOO}\nINPUT:\n  MIN_SIZE_TEST: 64\nMODEL:\n  ROI_HEADS:\n    SCORE_THRESH_TEST: 0.0\n"
    )
    config = model_zoo.get_config(ZOO)
    config.MODEL.DEVICE = "cpu"
    torch.manual_seed(0)
    save_file(build_model(config).state_dict(), folder / "model.safetensors")
    detector = _load(folder)
    assert len(detector.labels) == 80 and "potted plant" in detector.labels
    images = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)
    together = detector.detect(images)
    assert len(together) == 2
    for i, found in enumerate(together):
        assert len(found.labels) > 0
        assert found.masks.shape == (len(found.labels), 48, 64) and found.masks.dtype == bool
        assert (np.diff(found.scores) <= 0).all()
        (alone,) = detector.detect(images[i : i + 1])
        assert alone.labels == found.labels
        np.testing.assert_allclose(alone.scores, found.scores, atol=1e-5)
