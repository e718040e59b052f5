"""The model zoo's pickles: refused here in one line, and read after the conversion that docs/detectron2.md shows."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from diffground.cli.main import main
from diffground.detection.load import load_detector
from diffground.errors import UserError
from tests.real_packages.networks import CPU, WHY

pytest.importorskip("detectron2", reason=WHY)

ROOT = Path(__file__).parents[2]
ZOO = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as one that a user fills with a file of the zoo; the weights are random."""
    from detectron2 import model_zoo
    from detectron2.modeling import build_model

    folder = tmp_path_factory.mktemp("zoo")
    (folder / "config.yaml").write_text(f"_BASE_: {ZOO}\nINPUT: {{MIN_SIZE_TEST: 64}}\n")
    config = model_zoo.get_config(ZOO)
    config.MODEL.DEVICE = "cpu"
    config.MODEL.WEIGHTS = ""
    torch.manual_seed(0)
    weights = {name: tensor.numpy() for name, tensor in build_model(config).state_dict().items()}
    with (folder / "model_final_f10217.pkl").open("wb") as file:
        pickle.dump({"model": weights, "__author__": "Detectron2 Model Zoo"}, file)
    return folder


def load(folder: Path):  # type: ignore[no-untyped-def]
    return load_detector(backend="detectron2", checkpoint=str(folder), mask_threshold=0.5, device=CPU)


def test_a_file_of_the_zoo_is_refused_in_one_line_and_read_after_the_conversion_of_the_docs(zoo: Path) -> None:
    with pytest.raises(UserError, match=r"\.pkl is a pickle, which is never loaded.*docs/detectron2\.md") as caught:
        load(zoo)
    assert "\n" not in str(caught.value)
    (script,) = re.findall(r"```python\n(# convert\.py.*?)```", (ROOT / "docs/detectron2.md").read_text(), re.DOTALL)
    (zoo / "convert.py").write_text(script)
    command = [sys.executable, "convert.py", "model_final_f10217.pkl", "model.safetensors"]
    subprocess.run(command, cwd=zoo, check=True)
    detector = load(zoo)
    assert len(detector.labels) == 80
    assert len(detector.detect(np.zeros((1, 64, 64, 3), dtype=np.uint8))) == 1


def test_import_maskformer_refuses_it_too(
    zoo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        main(["import-maskformer", str(zoo / "model_final_f10217.pkl"), str(zoo / "imported")])
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert "must hold plain tensors only, never pickled code" in line and "docs/detectron2.md" in line
    assert not (zoo / "imported").exists()
