import subprocess
from pathlib import Path

import pytest

from diffground.cli.main import main
from diffground.errors import UserError
from diffground.reproduction.lock_file import read_stages
from diffground.reproduction.recovery import COPY, LOCK, RWLOCK, keep_copy, recover

WHOLE = (Path(__file__).parents[3] / LOCK).read_text()


def test_every_cut_that_loses_a_stage_is_put_back(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "generate")
    (tmp_path / LOCK).write_text(WHOLE)
    keep_copy(tmp_path)
    assert recover(tmp_path) == []
    last = WHOLE.index(f"\n  {list(read_stages(WHOLE))[-1]}:\n") + 1
    line_ends = [i + 1 for i, character in enumerate(WHOLE) if character == "\n"]
    cuts = [0, *range(1, len(WHOLE), len(WHOLE) // 5), *line_ends[:: len(line_ends) // 10], last]
    for end in (end for end in cuts if end <= last):
        (tmp_path / LOCK).write_text(WHOLE[:end])
        assert recover(tmp_path) == [f"{LOCK}: restored from {COPY}"], WHOLE[max(0, end - 40) : end]
        assert (tmp_path / LOCK).read_text() == WHOLE


def test_a_lock_with_fewer_stages_that_was_checked_out_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "generate")
    (tmp_path / LOCK).write_text(WHOLE)
    keep_copy(tmp_path)
    fewer = WHOLE[: WHOLE.index(f"\n  {list(read_stages(WHOLE))[-1]}:\n") + 1]
    (tmp_path / LOCK).write_text(fewer)
    _commit(tmp_path)
    assert recover(tmp_path) == []
    assert (tmp_path / LOCK).read_text() == fewer


def test_without_a_copy_the_last_commit_serves(tmp_path, monkeypatch, capsys):
    (tmp_path / LOCK).write_text(WHOLE)
    _commit(tmp_path)
    (tmp_path / LOCK).write_text(WHOLE[: WHOLE.index("deps:")] + "x: 1\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["recover"])
    assert end.value.code == 0
    assert capsys.readouterr().out == "dvc.lock: restored from the last commit\n"
    assert Path(LOCK).read_text() == WHOLE


def test_without_anything_one_line_says_what_to_do(tmp_path):
    (tmp_path / LOCK).write_text("stages: [")
    with pytest.raises(UserError, match=r"dvc\.lock: damaged, .*; delete it and run `dvc repro`"):
        recover(tmp_path)
    (tmp_path / COPY).parent.mkdir(parents=True)
    (tmp_path / COPY).write_text("half")
    with pytest.raises(UserError, match="no copy"):
        recover(tmp_path)


def test_only_what_dvc_has_read_is_copied(tmp_path, monkeypatch):
    monkeypatch.delenv("DVC_STAGE", raising=False)
    (tmp_path / LOCK).write_text("half")
    keep_copy(tmp_path)
    assert not (tmp_path / COPY).exists()


def test_no_lock_is_no_damage(tmp_path):
    keep_copy(tmp_path)
    assert recover(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", '{"write": {'])
def test_half_a_table_of_processes_is_removed(tmp_path, text):
    (tmp_path / RWLOCK).parent.mkdir(parents=True)
    (tmp_path / RWLOCK).write_text(text)
    assert recover(tmp_path) == [f"{RWLOCK}: removed"]
    (tmp_path / RWLOCK).write_text("{}")
    assert recover(tmp_path) == []
    assert (tmp_path / RWLOCK).is_file()


def _commit(folder: Path) -> None:
    for command in ("init -q", "add dvc.lock", "-c user.name=a -c user.email=a@b commit -qm x"):
        subprocess.run(["git", *command.split()], cwd=folder, check=True)
