"""DVC in a folder that is no clone."""

import subprocess

from diffground.reproduction.commands import DVC
from diffground.reproduction.without_git import LINE, let_dvc_work_without_git


def dvc_status(folder):
    return subprocess.run([*DVC, "status"], cwd=folder, capture_output=True, text=True, check=False)


def test_dvc_works_in_a_folder_without_git_and_uses_git_when_it_comes(tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    analytics = false\n")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    assert "is not a git repository" in dvc_status(tmp_path).stderr
    assert let_dvc_work_without_git(tmp_path) == [LINE]
    assert dvc_status(tmp_path).returncode == 0
    assert let_dvc_work_without_git(tmp_path) == []
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert len(let_dvc_work_without_git(tmp_path)) == 1
    assert "no_scm" not in (tmp_path / ".dvc/config.local").read_text()
    assert let_dvc_work_without_git(tmp_path) == []
