"""The ONNX file gives the scores of the segmenter that it was made of."""

from __future__ import annotations

import doctest
import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from diffground.errors import UserError
from diffground.segmentation import onnx_export
from diffground.segmentation.maskformer import MaskFormerSegmenter
from diffground.segmentation.onnx_export import export_onnx

ROOT = Path(__file__).parents[3]
MINI = ROOT / "models/mini/segmenter"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("onnx") / "segmenter.onnx"
    assert export_onnx(MINI, file) == file.stat().st_size > 100_000
    assert list(file.parent.iterdir()) == [file]
    return file


@pytest.fixture(scope="module")
def session(exported: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("num_images", [1, 3])
def test_onnxruntime_gives_the_scores_of_torch(session: onnxruntime.InferenceSession, num_images: int) -> None:
    segmenter = MaskFormerSegmenter.load(MINI, device=torch.device("cpu"))
    size = segmenter.image_size
    images = np.random.default_rng(num_images).integers(0, 256, (num_images, size, size, 3), dtype=np.uint8)
    [scores] = session.run(["scores"], {"images": images})
    expected = np.stack(segmenter.predict(list(images)))
    assert scores.shape == expected.shape == (num_images, 21, size, size)
    assert np.abs(scores - expected).max() < 1e-3
    assert np.ptp(expected) > 0.1, "equal scores everywhere would hide a difference"


def test_the_metadata_name_categories_and_preprocessing(session: onnxruntime.InferenceSession) -> None:
    about = session.get_modelmeta().custom_metadata_map
    config = json.loads((MINI / "config.json").read_text())
    assert json.loads(about["categories"]) == config["categories"]
    assert int(about["image_size"]) == config["image_size"]
    assert (float(about["mean"]), float(about["std"])) == (0.5, 0.25)
    assert about["diffground"] == version("diffground")


def test_the_example_of_the_docstring_runs(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "segmenter.onnx").symlink_to(exported)
    (tmp_path / "reports").symlink_to(ROOT / "reports")
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(onnx_export)
    assert (result.attempted, result.failed) == (10, 0)


def test_a_name_without_onnx_and_a_folder_without_segmenter_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must end in \.onnx, got '.*model\.pt'"):
        export_onnx(MINI, tmp_path / "model.pt")
    with pytest.raises(UserError, match="no segmenter"):
        export_onnx(tmp_path, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"needs 'onnxscript'; run pip install 'diffground\[onnx\]'"):
        export_onnx(MINI, tmp_path / "model.onnx")
