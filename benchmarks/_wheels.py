"""Packages for a machine without network: downloaded as wheels on another one, installed from there."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from diffground.errors import UserError, in_one_line


def locked_lines(name: str, lock: str) -> str:
    """The lines of `lock`, a requirements file with hashes, that are about package `name`.

    Raises: UserError where it does not pin the package.
    """
    found: list[str] = []
    for line in lock.splitlines():
        if line.startswith(f"{name}=="):
            found = [line]
        elif found and line.startswith(" "):
            found.append(line)
        elif found:
            break
    if not found:
        raise UserError(f"requirements.lock: does not pin '{name}'; renew it with `make lock`")
    return "\n".join(found) + "\n"


def download_wheels(names: Sequence[str], *, lock: Path, folder: Path) -> list[Path]:
    """The wheels of `names`, without dependencies, in the versions and with the hashes of `lock`, into `folder`.

    Returns the wheels that are there. Raises: UserError where pip fails.
    """
    text = lock.read_text(encoding="utf-8")
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write("".join(locked_lines(name, text) for name in names))
        file.flush()
        _pip("download", "--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", file.name, "-d", str(folder))
    return sorted(folder.glob("*.whl"))


def install_wheels(
    folder: Path, *, target: Path, option: str = "--wheels", command: str = "python -m benchmarks.gpu --pack"
) -> None:
    """Install every wheel of `folder` into `target`, without network, and put that first on sys.path.

    option, command: how the folder was given, and what fills it; for the message.
    Raises: UserError where there is no wheel or pip fails.
    """
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise UserError(f"{option} {folder}: holds no wheel; make it with `{command} {folder}`")
    _pip("install", "--no-index", "--no-deps", "--no-compile", "--target", str(target), *map(str, wheels))
    sys.path.insert(0, str(target))
    importlib.invalidate_caches()


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"pip {arguments[0]}: {in_one_line(done.stderr.strip() or done.stdout.strip())}")
