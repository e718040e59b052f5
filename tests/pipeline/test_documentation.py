"""Every command and Python block of README and docs runs, in a fresh clone or after a reproduction of profile smoke;
docs/commands_not_run.md names the commands that are left out, with the reason."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.documented import commands_to_run, python_blocks
from tests.scratch import ScratchRepository, copy_of_the_working_tree

COMMANDS, BLOCKS = commands_to_run(), python_blocks()
COMMANDS_ON_RESULTS = "verify|review|quality|reproduce|sync|compare|experiments"
NEEDS_A_REPRODUCTION = re.compile(
    rf"data/synthetic|models/segmenter|mlflow|tracking|dvc|diffground (?:{COMMANDS_ON_RESULTS})"
)
DRIVER = Path(__file__).with_name("run_documented.py")


def write_files_of_a_user(root):
    """The files that the commands name: photographs, a list of prompts, a word of one's own for the mini generator."""
    rng = np.random.default_rng(0)
    for name in ("photos/a.png", "photos/b.jpg", "more/c.jpg", "photo.png"):
        (root / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(root / name)
    (root / "prompts.txt").write_text("a photograph of a dog\n# a comment\na photograph of a sofa\n")
    config = json.loads((root / "models/mini/diffusion/text_encoder/config.json").read_text())
    save_file({"<my-cat>": torch.zeros(1, config["hidden_size"])}, root / "my-cat.safetensors")


def run_all(repository, texts):
    todo = [["command" if text in COMMANDS else "python", text] for text in texts]
    (repository.root / "todo.json").write_text(json.dumps(todo))
    repository.run(sys.executable, str(DRIVER), "todo.json", "results.json")
    return json.loads((repository.root / "results.json").read_text())


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Results of what a fresh clone can run, with the shipped models of profile mini."""
    repository = copy_of_the_working_tree(tmp_path_factory.mktemp("documented") / "fresh")
    write_files_of_a_user(repository.root)
    texts = [text for text in (*COMMANDS, *BLOCKS.values()) if not NEEDS_A_REPRODUCTION.search(text)]
    return run_all(repository, texts)


@pytest.fixture(scope="module")
def after_reproduction(tmp_path_factory, reproduced):
    """Results of what needs a reproduction, in a copy of one of profile smoke."""
    root = tmp_path_factory.mktemp("documented") / "reproduced"
    shutil.copytree(reproduced.root, root, symlinks=True)
    repository = ScratchRepository(root, python_path=root / "src")
    repository.initialise()
    write_files_of_a_user(root)
    repository.commit("reproduced")
    texts = [text for text in (*COMMANDS, *BLOCKS.values()) if NEEDS_A_REPRODUCTION.search(text)]
    return run_all(repository, texts)


@pytest.fixture
def results(request, text):
    return request.getfixturevalue("after_reproduction" if NEEDS_A_REPRODUCTION.search(text) else "fresh")


@pytest.mark.parametrize("text", COMMANDS)
def test_a_documented_command_runs(results, text):
    assert results[text] == ""


@pytest.mark.parametrize("text", BLOCKS.values(), ids=BLOCKS)
def test_documented_python_runs(results, text):
    assert results[text] == ""
