"""tools/build_detectron2.py: which sources it takes, and its one-line errors. The build itself: `.ci/run`."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tools.build_detectron2 import MARKS, BuildError, find_sources, unpack

SCRIPT = Path(__file__).parents[3] / "tools/build_detectron2.py"


def tree(folder: Path, name: str) -> Path:
    file = folder / MARKS[name]
    file.parent.mkdir(parents=True)
    file.write_text("")
    return folder


def archive(file: Path, name: str) -> Path:
    """As GitHub makes them: everything is in one folder."""
    root = tree(file.parent / f"of-{file.name}" / f"{name}-0123abc", name)
    inside = f"{root.name}/{MARKS[name]}"
    if file.suffix == ".zip":
        with zipfile.ZipFile(file, "w") as opened:
            opened.write(root / MARKS[name], inside)
    else:
        with tarfile.open(file, "w:gz") as opened_tar:
            opened_tar.add(root / MARKS[name], inside)
    return file


def test_a_folder_with_archives_is_searched(tmp_path: Path) -> None:
    detectron2, maskformer = archive(tmp_path / "a.tar.gz", "detectron2"), archive(tmp_path / "b.zip", "MaskFormer")
    (tmp_path / "README.md").write_text("not a source")
    expected = {"detectron2": detectron2, "MaskFormer": maskformer}
    assert find_sources([tmp_path]) == expected
    assert find_sources([maskformer, detectron2]) == expected


def test_source_trees_and_archives_can_be_mixed(tmp_path: Path) -> None:
    clone, maskformer = tree(tmp_path / "clone", "detectron2"), archive(tmp_path / "b.zip", "MaskFormer")
    assert find_sources([clone, maskformer]) == {"detectron2": clone, "MaskFormer": maskformer}


@pytest.mark.parametrize("name", MARKS)
@pytest.mark.parametrize("kind", ["tar.gz", "zip", "tree"])
def test_what_is_unpacked_is_the_source_tree(name: str, kind: str, tmp_path: Path) -> None:
    source = tree(tmp_path / "in", name) if kind == "tree" else archive(tmp_path / f"in.{kind}", name)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old").write_text("of an earlier build")
    unpacked = unpack(source, tmp_path / "out", name)
    assert (unpacked / MARKS[name]).is_file()
    assert not (tmp_path / "out/old").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["nothing"], "nothing: no such file or folder"),
        (["empty"], "empty: no archive (.tar.gz, .tgz, .zip) or source tree of detectron2 and MaskFormer; add it"),
        (["one.tar.gz"], "one.tar.gz: no archive (.tar.gz, .tgz, .zip) or source tree of MaskFormer; add it"),
        (["one.tar.gz", "two.zip"], "two.zip: a second source of detectron2, after one.tar.gz; give one"),
        (["text.tar.gz"], "text.tar.gz: not an archive, or cut off; fetch it again"),
    ],
)
def test_sources_that_are_missing_or_damaged_are_named(
    names: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("text.tar.gz").write_text("text")
    archive(Path("one.tar.gz"), "detectron2")
    archive(Path("two.zip"), "detectron2")
    with pytest.raises(BuildError) as caught:
        find_sources([Path(name) for name in names])
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "error: name the sources: make detectron2 SOURCES=DIR"),
        (["nothing"], "error: nothing: no such file or folder"),
        (["http://127.0.0.1:9/a.tar.gz"], "error: http://127.0.0.1:9/a.tar.gz: cannot be downloaded"),
        (["https://example.org/repository"], "error: https://example.org/repository: must end in .tar.gz"),
    ],
)
def test_bad_sources_are_one_line_and_make_no_environment(sources: list[str], message: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "venv", *sources], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "venv/bin").exists()
