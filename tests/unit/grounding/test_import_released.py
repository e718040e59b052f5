"""From the published file to a model folder; whatever is not that file is one line, and nothing in it is run."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import diffground
from diffground.errors import UserError
from diffground.grounding.checkpoint import load_grounding
from diffground.grounding.import_released import RELEASED_SPEC, import_released, read_released
from tests.unit.grounding.released_reference import published_shapes, random_state
from tests.unit.state_changes import with_entry, without


class Malicious:
    """Unpickled, it makes a file."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.made}",)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return random_state(published_shapes(), seed=0)


@pytest.fixture(scope="module")
def file(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / "grounding_module.pth"
    torch.save(state, path)
    return path


def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(Path(diffground.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-m", "diffground", "import-released", *map(str, arguments)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_makes_a_folder_that_loads_with_the_published_weights(
    file: Path, state: dict[str, Tensor], tmp_path: Path
) -> None:
    folder = tmp_path / "models" / "released"
    result = call(file, "-o", folder)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{folder}: the released grounding module, ")
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert json.loads((folder / "config.json").read_text())["architecture"] == "released"
    module, spec = load_grounding(folder)
    assert spec == RELEASED_SPEC
    assert not module.training
    loaded = {name.split(".", 1)[1]: tensor for name, tensor in module.state_dict().items()}
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


@pytest.mark.parametrize(("as_torch_file", "reason"), [(True, "it refers to posix.system"), (False, "it is damaged")])
def test_a_pickle_is_refused_and_not_run(
    as_torch_file: bool, reason: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    made, path = tmp_path / "made", tmp_path / "grounding_module.pth"
    content = {**state, "extra": Malicious(made)}
    if as_torch_file:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content["extra"]))
    result = call(path, "-o", tmp_path / "out")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {path}: must hold plain tensors only, never pickled code ({reason}")
    assert not made.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("to_q.weight"), "'to_q.weight' is missing;"),
        (lambda state: {}, r"'mlp.layers.0.bias' is missing \(and 89 more\);"),
        (with_entry("to_v.weight", torch.zeros(2)), "'to_v.weight' is not part of the published module;"),
        (with_entry("a\nb", torch.zeros(2)), r"'a\\nb' is not part"),
        (lambda state: {f"module.{k}": v for k, v in state.items()}, r"is missing \(and 89 more\)"),
        (lambda state: {"state_dict": state}, r"is missing \(and 89 more\)"),
        (
            with_entry("to_q.weight", torch.zeros(512, 1024)),
            r"'to_q.weight' must have shape \(512, 768\), has \(512, 1024\);",
        ),
        (
            with_entry("mlp.layers.2.bias", torch.full((240,), torch.nan)),
            "'mlp.layers.2.bias' must hold finite numbers;",
        ),
        (with_entry("mlp.layers.2.bias", torch.zeros(240).long()), "must be a dense float tensor, is torch.int64;"),
        (with_entry("mlp.layers.2.bias", torch.zeros(240).to_sparse()), "must be a dense float tensor"),
        (with_entry("mlp.layers.2.bias", 3), "must be a dense float tensor, is int;"),
        (lambda state: list(state.values()), r"must be a state dict \(name -> tensor\), is a list;"),
        (lambda state: {1: torch.zeros(1)}, "must be a state dict"),
    ],
)
def test_other_contents_are_one_line(
    change: Callable[[dict[str, Any]], Any], message: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "grounding_module.pth"
    torch.save(change(state), path)
    with pytest.raises(UserError, match=message) as caught:
        import_released(path, tmp_path / "out")
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_damaged_files_are_one_line(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    broken = {
        "empty": b"",
        "text": b"<!DOCTYPE html>\n",
        "half": content[: len(content) // 2],
        "end": content[-4096:],
        "zeros": bytes(1000),
        "pickle": pickle.dumps([1, 2])[:-1],
    }
    for name, damaged in broken.items():
        path = tmp_path / f"{name}.pth"
        path.write_bytes(damaged)
        with pytest.raises(UserError) as caught:
            read_released(path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500


def test_tensors_that_share_memory_or_are_half_precision_are_taken_as_float32(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "grounding_module.pth"
    torch.save(
        {**state, "mlp.layers.1.bias": state["mlp.layers.0.bias"], "to_q.weight": state["to_q.weight"].half()}, path
    )
    import_released(path, tmp_path / "out")
    module, _ = load_grounding(tmp_path / "out")
    assert {tensor.dtype for tensor in module.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(module.fusion.to_q.weight, state["to_q.weight"], atol=1e-3, rtol=1e-3)
    assert torch.equal(module.fusion.mlp.layers[1].bias, state["mlp.layers.0.bias"])


def test_a_missing_file_and_a_folder_that_is_taken_are_named(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.pth: no such file; give the file that the authors published"):
        import_released(tmp_path / "none.pth", tmp_path / "out")
    with pytest.raises(UserError, match="no such file"):
        import_released(tmp_path, tmp_path / "out")
    (tmp_path / "config.json").write_text("mine")
    with pytest.raises(UserError, match="holds a model already; delete it or name another folder with -o"):
        import_released(file, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]
    with pytest.raises(UserError, match="must be a folder, is a file"):
        import_released(file, tmp_path / "config.json")


def test_the_card_says_where_the_weights_come_from(file: Path, tmp_path: Path) -> None:
    import_released(file, tmp_path / "out")
    sha256 = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True).stdout.split()[0]
    card = (tmp_path / "out" / "README.md").read_text()
    assert sha256 in card
    assert "2301.05221" in card
