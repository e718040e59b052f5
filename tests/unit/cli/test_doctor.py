"""`diffground doctor` in a clone, outside of one, and where things are missing."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from diffground.cli import doctor_clone, doctor_machine
from diffground.cli.doctor import doctor
from diffground.cli.findings import Finding
from diffground.reproduction.commands import DVC_TEMPORARY
from tests.scratch import ScratchRepository

ROOT = Path(__file__).parents[3]


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with what the checks look at, and the mini models."""
    repository = ScratchRepository(tmp_path / "clone", python_path=ROOT / "src")
    repository.initialise()
    for name in ("dvc.yaml", "dvc.lock", "params.yaml"):
        shutil.copy2(ROOT / name, repository.root / name)
    shutil.copytree(ROOT / ".dvc", repository.root / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
    repository.commit("start")
    (repository.root / "models").mkdir()
    (repository.root / "models/mini").symlink_to(ROOT / "models/mini")
    monkeypatch.chdir(repository.root)
    return repository.root


def of_clone() -> dict[str, Finding]:
    return {finding.what: finding for check in doctor_clone.CHECKS for finding in check()}


def set_params(section: str, **values: object) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params[section] |= values
    Path("params.yaml").write_text(yaml.safe_dump(params))


def test_a_whole_clone_is_well_and_json_says_the_same_as_the_lines(
    clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor(as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} <= {"ok", "warn"}
    assert doctor(as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    assert len(told["findings"]) == len(lines)
    for finding, line in zip(told["findings"], lines, strict=True):
        assert line[5:].startswith(f"{finding['what']}: ")
    assert {"python", "torch", "git", "dvc", "generator", "detector", "data", "memory", "disk", "write access"} <= {
        finding["what"] for finding in told["findings"]
    }


def test_outside_of_a_clone_it_says_so_and_exits_with_1(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    code = (
        "import sys; sys.modules.update(torch=None)\nfrom diffground.cli.main import main; main(['doctor', '--json'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert "is not the root of a clone" in findings["repository"]["found"]
    assert findings["torch"]["status"] == "fail" and "pip install diffground" in findings["torch"]["fix"]
    assert "not checked, torch is not installed" in findings["devices"]["found"]


@pytest.mark.parametrize(
    ("section", "values", "what", "found", "fix"),
    [
        ("generator", {"checkpoint": "models/none"}, "generator", "no such folder", "git checkout -- models"),
        ("detector", {"checkpoint": "models/none"}, "detector", "config.json and model.safetensors missing", "git"),
        (
            "detector",
            {"checkpoint": "MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1"},
            "detector",
            "is not downloaded",
            "diffground fetch detector",
        ),
        ("segmenter", {"backbone": "models/none"}, "segmenter's backbone", "missing", "git checkout"),
        ("data", {"source": "voc", "root": "data/VOC2012"}, "data", "JPEGImages", "diffground fetch voc2012"),
        ("data", {"source": "coco", "root": "data/coco2017"}, "data", "train2017", "diffground fetch coco2017"),
    ],
)
def test_what_the_profile_lacks_is_named_with_the_command_that_brings_it(
    clone: Path, monkeypatch: pytest.MonkeyPatch, section: str, values: dict, what: str, found: str, fix: str
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(clone / "torch"))
    set_params(section, **values)
    finding = of_clone()[what]
    assert finding.status == "fail" and found in finding.found and fix in finding.fix, finding


def test_lock_files_that_were_left_and_a_damaged_dvc_lock_are_found(clone: Path) -> None:
    assert of_clone()["dvc"].status == "ok"
    Path(".git/index.lock").touch()
    Path("dvc.lock").write_text(Path("dvc.lock").read_text()[:-30])
    DVC_TEMPORARY.mkdir(exist_ok=True)
    (DVC_TEMPORARY / "rwlock").write_text('{"read": ')
    found = of_clone()
    assert found["git lock"].status == "warn" and found["git lock"].fix.endswith("rm .git/index.lock")
    assert found["dvc lock"].fix == found["dvc"].fix == "run `diffground recover`"


def test_a_folder_without_git_says_what_to_type(clone: Path) -> None:
    shutil.rmtree(".git")
    finding = of_clone()["git"]
    assert finding.status == "fail" and "git init" in finding.fix
    with Path(".dvc/config").open("a") as file:
        file.write("[core]\n    no_scm = true\n")
    assert of_clone()["git"].status == "ok"


def test_a_port_in_use_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        monkeypatch.setattr(doctor_machine, "_PORTS", {port: ("a server", "stop it")})
        assert [finding.status for finding in doctor_machine.ports()] == ["warn"]
    assert [finding.status for finding in doctor_machine.ports()] == ["ok"]


def test_more_threads_than_cores_are_a_warning(clone: Path) -> None:
    set_params("runtime", num_threads=10_000)
    cores = next(finding for finding in doctor_machine.processors() if finding.what == "cores")
    assert cores.status == "warn" and "runtime.num_threads=" in cores.fix


def test_a_line_has_status_what_and_fix() -> None:
    assert Finding("fail", "data", "missing", "run it").line() == "fail data: missing; run it"
    assert Finding("ok", "data", "there").line() == "ok   data: there"


def test_backends_that_are_not_installed_say_how_to_build_them(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_params("detector", backend="detectron2")
    set_params("segmenter", backend="official", matching="bipartite")
    monkeypatch.setattr(doctor_clone, "is_installed", lambda module: False)
    found = of_clone()
    assert found["detector"].status == found["segmenter"].status == "fail"
    assert "needs detectron2 and mask_former" in found["segmenter"].found
    assert "make detectron2" in found["detector"].fix and "make detectron2" in found["segmenter"].fix


def test_a_detectron2_folder_needs_what_that_backend_reads(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_params("detector", backend="detectron2", checkpoint="zoo")
    monkeypatch.setattr(doctor_clone, "is_installed", lambda module: True)
    Path("zoo").mkdir()
    assert of_clone()["detector"].status == "fail"
    Path("zoo/config.yaml").write_text("")
    Path("zoo/model.safetensors").write_bytes(b"")
    assert of_clone()["detector"] == Finding("ok", "detector", "zoo/model.safetensors")
