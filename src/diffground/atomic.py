"""Files that appear whole or not at all, so that nothing half-written is taken for a result."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_file(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """The path to write instead of `path`: <name>.<process id>.partial next to it.

    At the end that file is on the disk and takes the place of `path`; after an exception it is gone, and what was at
    `path` before is still there. Folders above `path` are made. Who may read the file is decided by the umask, as for
    any new file, whoever wrote it.

    sync: False: the file may still be lost or empty after a power failure, until os.sync is called; for many small
        files, whose syncs would take most of the time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.touch()
        mode = stat.S_IMODE(partial.stat().st_mode)
        yield partial
        # safetensors renames a private temporary file (mode 600) to `partial`
        partial.chmod(mode)
        if sync:
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Write `text` as UTF-8, its line ends as they are, see atomic_file."""
    with atomic_file(path) as partial:
        partial.write_bytes(text.encode())
