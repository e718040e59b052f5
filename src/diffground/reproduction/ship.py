"""models/mini/{grounding,segmenter}: the trained models of the committed reproduction, for use in a fresh clone.

`python -m diffground.reproduction.ship` writes them after `dvc repro`; dvc.lock names the outputs.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from diffground.atomic import atomic_file, write_atomically
from diffground.errors import UserError
from diffground.grounding.checkpoint import Defaults, write_defaults
from diffground.reproduction import paths
from diffground.reproduction.config import Params, load_params
from diffground.reproduction.lock_file import read_stages
from diffground.reproduction.recovery import LOCK

SOURCE = "source.json"
"""In a shipped folder: the output of dvc.lock that it is a copy of, {"out": path, "md5": its hash}."""


def ship(params: Params) -> list[Path]:
    """Copy the grounding module and the segmenter of the synthetic set. Returns the folders written.

    Raises: UserError when an output is missing or dvc.lock does not name it.
    """
    locked = {
        out["path"]: out["md5"]
        for stage in read_stages(LOCK.read_text(encoding="utf-8")).values()
        for out in stage.get("outs", [])
    }
    written = []
    for name, folder, out in (
        ("grounding", paths.GROUNDING_MODEL, paths.GROUNDING_MODEL),
        ("segmenter", paths.SEGMENTERS / "synthetic", paths.SEGMENTERS),
    ):
        if not folder.is_dir() or out.as_posix() not in locked:
            raise UserError(f"{folder}: nothing to ship; run `dvc repro`")
        target = paths.SHIPPED / name
        for file in sorted(folder.iterdir()):
            with atomic_file(target / file.name) as partial:
                shutil.copyfile(file, partial)
        source = {"out": out.as_posix(), "md5": locked[out.as_posix()]}
        write_atomically(target / SOURCE, json.dumps(source, indent=2) + "\n")
        written.append(target)
    defaults = Defaults(params.generator.sampling, params.grounding.mask_threshold)
    write_defaults(paths.SHIPPED / "grounding", defaults)
    return written


if __name__ == "__main__":
    for path in ship(load_params()):
        print(f"{path}: written")
