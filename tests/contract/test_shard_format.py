"""The shard format has one owner: only data/labelled.py spells member names and reads meta.json."""

import ast
from pathlib import Path

import pytest

from diffground.data import labelled

ROOT = Path(__file__).parents[2]
OWNER = Path(labelled.__file__)
CODECS = ROOT / "src/diffground/data/shards.py"
FILES = sorted(
    path for folder in ("src", "stages", "flows", "pretrain", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)
RESULTS = ROOT / "src/diffground/interface/samples.py"
"""Its names are those of files that `ground` writes for users."""
MEMBERS = {"image.png", "label.png", "latent.npy", "ignored.png", "meta.json"}


def spelled(tree):
    """Member names in strings, parts of f-strings included; docstrings do not count."""
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    strings = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts
    ]
    return [value for value in strings if value in MEMBERS or value == "mask."]


def json_codecs(tree):
    """The codecs of meta.json that a module imports."""
    return [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "diffground.data.shards"
        for alias in node.names
        if alias.name in ("decode_json", "encode_json")
    ]


def test_the_owner_spells_each_member_once():
    tree = ast.parse(OWNER.read_text())
    assert sorted(spelled(tree)) == sorted([*MEMBERS, "mask."])
    assert sorted(json_codecs(tree)) == ["decode_json", "encode_json"]


@pytest.mark.parametrize(
    "path", [p for p in FILES if p not in (OWNER, CODECS, RESULTS)], ids=lambda p: str(p.relative_to(ROOT))
)
def test_no_other_module_knows_the_members(path):
    tree = ast.parse(path.read_text())
    assert spelled(tree) == [], "use diffground.data.labelled"
    assert json_codecs(tree) == [], "use diffground.data.labelled"
