"""DVC in a folder that is no clone, as in a downloaded ZIP of the repository."""

from __future__ import annotations

from pathlib import Path

from diffground.reproduction.commands import DVC, output_of

LINE = (
    "this folder is no git repository: DVC works without git here (core.no_scm in .dvc/config.local); "
    "`diffground experiments` needs a clone"
)


def let_dvc_work_without_git(root: Path = Path()) -> list[str]:
    """Without a .git here or above, set core.no_scm in .dvc/config.local, which no commit has; with one, take it back,
    where `git init` or a clone came later.

    Returns: one line where something was changed. Raises: UserError when DVC cannot write its settings.
    """
    settings = root / ".dvc" / "config.local"
    is_set = settings.is_file() and "no_scm = true" in settings.read_text(encoding="utf-8").lower()
    has_git = any((folder / ".git").exists() for folder in (root.resolve(), *root.resolve().parents))
    if has_git and is_set:
        output_of([*DVC, "config", "--local", "--unset", "core.no_scm"], cwd=root)
        return ["this folder is a git repository again: core.no_scm was removed from .dvc/config.local"]
    if has_git or is_set:
        return []
    output_of([*DVC, "config", "--local", "core.no_scm", "true"], cwd=root)
    return [LINE]
