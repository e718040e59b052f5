"""The library imports nothing of the pipeline's packages, and imports between its packages point down."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "diffground"
FLOORS = (
    ("errors", "atomic", "ranges", "state_dict", "entry_point", "tables"),
    ("vocabulary", "prompts", "contexts", "data", "runtime", "training"),
    ("diffusion", "detection"),
    ("grounding", "segmentation", "baselines"),
    ("evaluation",),
    ("grounded",),
    ("reproduction",),
    ("tracking",),
    ("report",),
    ("experiments",),
    ("ground_command", "cli", "__main__"),
)
"""From the ground up. Packages of one floor may import each other in one direction."""
LIBRARY = {name for floor in FLOORS[:6] for name in floor}
OF_THE_PIPELINE = (
    "dvc", "filelock", "hydra", "jinja2", "matplotlib", "mlflow", "omegaconf", "prefect", "pydantic", "ray", "resvg_py",
)  # fmt: skip

IMPORT_ALL = """
import importlib, sys

class Hidden:
    def __init__(self, finder):
        self._finder = finder

    def __getattr__(self, name):
        return getattr(self._finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else self._finder.find_spec(name, path, target)

HIDDEN = set(sys.argv[1].split(","))
sys.meta_path[:] = [Hidden(finder) for finder in sys.meta_path]
for module in sys.argv[2].split(","):
    importlib.import_module(module)
print("imported", len(sys.argv[2].split(",")))
"""


def module_files():
    """Module -> file; a package goes by its __init__."""
    files = {}
    for path in SRC.rglob("*.py"):
        parts = path.relative_to(SRC.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def import_graph(files):
    """Module -> modules of the package that it imports, inside functions too."""
    graph = {}
    for module, path in files.items():
        imported = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: imports are absolute"
                names = [f"{node.module}.{alias.name}" for alias in node.names] + [str(node.module)]
            else:
                continue
            known = [name for name in names if name in files]
            # "from diffground.data import shards" is an import of shards, not of the package's __init__
            imported |= {name for name in known if not any(other.startswith(f"{name}.") for other in known)}
        graph[module] = imported - {module}
    return graph


def package_of(module):
    return module.split(".")[1]


def upward_imports(graph):
    """'a -> b' for each import of a package that is on a higher floor."""
    floor_of = {name: number for number, floor in enumerate(FLOORS) for name in floor}
    return sorted(
        f"{module} -> {other}"
        for module, imported in graph.items()
        for other in imported
        if floor_of[package_of(other)] > floor_of[package_of(module)]
    )


def circles(graph):
    """Nodes that reach themselves."""

    def reached(start):
        found, queue = set(), list(graph.get(start, ()))
        while queue:
            node = queue.pop()
            if node not in found:
                found.add(node)
                queue += graph.get(node, ())
        return found

    return sorted(node for node in graph if node in reached(node))


FILES = {module: path for module, path in module_files().items() if module != "diffground"}
GRAPH = import_graph(FILES)


def test_every_module_has_a_floor():
    names = {package_of(module) for module in FILES}
    floors = {name for floor in FLOORS for name in floor}
    assert names - floors == set(), "put the new module on a floor of tests/contract/test_imports.py"


def test_no_import_points_up():
    assert sum(map(len, GRAPH.values())) > 400
    assert upward_imports(GRAPH) == []


def test_no_modules_import_each_other_in_a_circle():
    assert circles(GRAPH) == []


def test_no_packages_import_each_other_in_a_circle():
    packages = {}
    for module, imported in GRAPH.items():
        packages.setdefault(package_of(module), set()).update(map(package_of, imported))
    assert circles({package: others - {package} for package, others in packages.items()}) == []


def test_an_upward_import_and_a_circle_are_found():
    assert upward_imports({"diffground.data.x": {"diffground.report.y"}}) == [
        "diffground.data.x -> diffground.report.y"
    ]
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == ["b", "c"]


def test_the_library_imports_nothing_of_the_pipeline():
    optional = ("diffground.runtime.ray", "diffground.detection.detectron2", "diffground.segmentation.detectron2")
    modules = [m for m in FILES if package_of(m) in LIBRARY and not m.startswith(optional)]
    assert len(modules) > 90
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    # torch and huggingface_hub have filelock, and torch has jinja2 for its compiler: what others need is no matter
    hidden = ",".join(name for name in OF_THE_PIPELINE if name not in ("filelock", "jinja2"))
    command = [sys.executable, "-c", IMPORT_ALL, hidden, ",".join(modules)]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ran.stdout.split() == ["imported", str(len(modules))], ran.stderr[-2000:]


@pytest.mark.parametrize("name", OF_THE_PIPELINE)
def test_the_library_names_no_package_of_the_pipeline(name):
    found = []
    for module, path in FILES.items():
        if package_of(module) not in LIBRARY or module.startswith("diffground.runtime.ray"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:  # at the top: stickers import their renderer when they draw
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            found += [module for other in names if other.partition(".")[0] == name]
    assert found == []
