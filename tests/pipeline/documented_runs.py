"""Runs what README and docs show, all in one process per repository."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.documented import commands_to_run, python_blocks

COMMANDS, BLOCKS = commands_to_run(), python_blocks()
_COMMANDS_ON_RESULTS = "verify|quality|reproduce|sync|compare|experiments"
_ON_RESULTS = re.compile(
    rf"data/synthetic|models/segmenter|mlflow|tracking|dvc|python -m flows|diffground (?:{_COMMANDS_ON_RESULTS})"
)


def need_a_reproduction(texts, needed):
    """Those of `texts` that need the results of a reproduction, or those that do not."""
    return [text for text in texts if bool(_ON_RESULTS.search(text)) == needed]


def results_of(repository, *, reproduced):
    """Text of each command and block -> '' or what went wrong, for those that need `reproduced` or not."""
    root = repository.root
    _write_files_of_a_user(root)
    todo = [("command", text) for text in need_a_reproduction(COMMANDS, reproduced)]
    todo += [("python", text) for text in need_a_reproduction(BLOCKS.values(), reproduced)]
    (root / "todo.json").write_text(json.dumps(todo))
    repository.run(sys.executable, str(Path(__file__).with_name("run_documented.py")), "todo.json", "results.json")
    return json.loads((root / "results.json").read_text())


def _write_files_of_a_user(root):
    """The files that the commands name: photographs, a list of prompts, a word of one's own for the mini generator."""
    rng = np.random.default_rng(0)
    for name in ("photos/a.png", "photos/b.jpg", "more/c.jpg", "photo.png"):
        (root / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(root / name)
    (root / "prompts.txt").write_text("a photograph of a dog\n# a comment\na photograph of a sofa\n")
    config = json.loads((root / "models/mini/diffusion/text_encoder/config.json").read_text())
    save_file({"<my-cat>": torch.zeros(1, config["hidden_size"])}, root / "my-cat.safetensors")
