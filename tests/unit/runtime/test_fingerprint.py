"""A hub id is told from a folder, there or missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffground.runtime.fingerprint import is_hub_id


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("owner/name", True),
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", True),
        ("name", False),
        ("", False),
        ("owner/name/part", False),
        ("/name", False),
        ("./name", False),
        ("../name", False),
        ("models/missing", False),  # of this repository
        ("here/folder", False),
        ("here/file", False),
    ],
)
def test_an_owner_and_a_name_are_a_hub_id_unless_they_are_a_path(
    name: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here/folder").mkdir(parents=True)
    (tmp_path / "here/file").touch()
    monkeypatch.chdir(tmp_path)
    assert is_hub_id(name) is expected
