"""The folder of an export: who may write there, what is finished, and with which settings.

`.diffground-export` in it holds the settings, what is known of every finished shard, and at the end the summary. A
killed export resumes with the same settings and finishes; other settings are refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from diffground.atomic import atomic_file, write_atomically
from diffground.entry_point import is_full_disk
from diffground.errors import UserError

STATE = ".diffground-export"
_SETTINGS, _SUMMARY, _SHARDS = "settings.json", "summary.json", "shards"


class ExportFolder:
    """`out` for one export; made where it is missing."""

    def __init__(self, out: Path, *, settings: Mapping[str, Any]) -> None:
        """settings: name as the user knows it ("--split") -> value.

        Raises: UserError for a folder with other files, one of an export with other settings, and one that cannot be
        written.
        """
        self.out, self.state = out, out / STATE
        try:
            self._open({name: json.loads(json.dumps(value)) for name, value in settings.items()})
        except OSError as error:
            if is_full_disk(error):
                raise
            raise UserError(
                f"--out {out}: cannot be written ({error.strerror}: '{error.filename}'); name another"
            ) from None

    def _open(self, settings: Mapping[str, Any]) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        if not self.state.is_dir() and next(self.out.iterdir(), None) is not None:
            raise UserError(f"--out {self.out}: holds files that are not of an export; name an empty or a new folder")
        path = self.state / _SETTINGS
        if path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))
            for name in [*settings, *before]:
                if settings.get(name) != before.get(name):
                    raise UserError(
                        f"--out {self.out}: was begun with {name} {_shown(before.get(name))}, now it is "
                        f"{_shown(settings.get(name))}; repeat the setting, name another folder, or delete this one"
                    )
        else:
            write_atomically(path, json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n")

    def summary(self) -> dict[str, Any] | None:
        """That of the finished export; None while it is unfinished."""
        return _read(self.state / _SUMMARY)

    def finish(self, summary: Mapping[str, Any]) -> None:
        os.sync()
        write_atomically(self.state / _SUMMARY, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")

    def shard(self, name: str) -> dict[str, Any] | None:
        """What finish_shard was told; None for a shard that is unfinished."""
        return _read(self.state / _SHARDS / f"{name}.json")

    def finish_shard(self, name: str, facts: Mapping[str, Any]) -> None:
        os.sync()  # once for all files of write_once
        write_atomically(
            self.state / _SHARDS / f"{name}.json", json.dumps(facts, sort_keys=True, ensure_ascii=False) + "\n"
        )

    def drop_partial_files(self) -> None:
        """Delete what a killed process left half-written."""
        for path in _files(self.out):
            if path.endswith(".partial"):
                Path(path).unlink(missing_ok=True)


def write_once(path: Path, content: Callable[[], bytes]) -> None:
    """Write a file, whole or not at all, unless it is there with this content.

    It is safe from power failures only after finish_shard or finish.
    """
    data = content()
    if not (path.is_file() and path.read_bytes() == data):
        with atomic_file(path, sync=False) as partial:
            partial.write_bytes(data)


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _files(folder: Path | str) -> Iterator[str]:
    """All files below `folder`; os.walk would hold the names of a whole folder in memory."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path)
            else:
                yield entry.path
