"""Wheels for a machine without network: what pip is asked for, and what it installs."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks._wheels import install_wheels, locked_lines
from diffground.errors import UserError
from tests.wheels import write_wheel

ROOT = Path(__file__).parents[3]
LOCK = """# comment
diffusers==0.42.1 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
diffusers-extra==1.0 \\
    --hash=sha256:cc
"""


def test_the_pinned_version_is_asked_for_with_its_hashes():
    assert locked_lines("diffusers", LOCK) == ("diffusers==0.42.1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n")


def test_a_package_that_the_lock_does_not_pin_is_named():
    with pytest.raises(UserError, match=r"requirements\.lock: does not pin 'daam'"):
        locked_lines("daam", LOCK)


def test_the_lock_pins_what_is_packed():
    from benchmarks.gpu import PACKED

    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert all("--hash=sha256:" in locked_lines(name, lock) for name in PACKED)


def test_a_wheel_with_a_data_file_is_installed_without_network_and_imported(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    wheels, target = tmp_path / "wheels", tmp_path / "target"
    wheels.mkdir()
    write_wheel(wheels, "carried_package")
    install_wheels(wheels, target=target)
    import carried_package

    assert carried_package.TEXT == "from the wheel"
    assert Path(carried_package.__file__).is_relative_to(target)


def test_a_folder_without_wheels_is_named_with_the_command_that_fills_it(tmp_path):
    command = [sys.executable, ROOT / "benchmarks/gpu.py", "--wheels", tmp_path, "--device", "cpu", "--tiny"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: --wheels {tmp_path}: holds no wheel; make it with `python -m benchmarks.gpu --pack {tmp_path}`\n"
    )
