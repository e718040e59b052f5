"""What a user imports: examples of docstrings and README run in a clone, without the packages of the pipeline."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import diffground
from diffground.reproduction.paths import SHIPPED
from diffground.reproduction.ship import SOURCE

ROOT = Path(__file__).parents[2]
HIDE_PIPELINE = """
import sys

class Hidden:
    def __init__(self, finder):
        self._finder = finder

    def __getattr__(self, name):
        return getattr(self._finder, name)

    def find_spec(self, name, path=None, target=None):
        hidden = name.partition(".")[0] in {"dvc", "mlflow", "hydra", "omegaconf", "prefect", "ray", "pydantic"}
        return None if hidden else self._finder.find_spec(name, path, target)

sys.meta_path[:] = [Hidden(finder) for finder in sys.meta_path]
"""


def run_without_pipeline(code, *, cwd=ROOT):
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", HIDE_PIPELINE + code]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("module", ["diffground.grounded", "diffground.segmentation.pipeline"])
def test_the_examples_of_docstrings_run(module):
    code = f"import doctest, {module}\nresult = doctest.testmod({module})\nprint(result.attempted, result.failed)"
    ran = run_without_pipeline(code)
    attempted, failed = map(int, ran.stdout.split()[-2:])
    assert (attempted >= 3, failed) == (True, 0), ran.stdout + ran.stderr


def test_the_python_of_readme_runs(tmp_path):
    (tmp_path / "models").symlink_to(ROOT / "models")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    of_the_library = [block for block in blocks if "import mlflow" not in block]
    assert of_the_library
    for block in of_the_library:
        assert "GroundedPipeline" in block
        ran = run_without_pipeline(block, cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr


def test_every_public_name_is_there_and_explained():
    assert set(diffground.__all__) <= set(dir(diffground))
    for name in diffground.__all__:
        assert getattr(diffground, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'Grounded'"):
        _ = diffground.Grounded


def test_importing_the_package_imports_no_torch():
    ran = run_without_pipeline("import diffground; print('torch' in sys.modules, diffground.__version__)")
    assert ran.stdout.split()[0] == "False", ran.stderr


@pytest.mark.parametrize("name", ["grounding", "segmenter"])
def test_a_shipped_model_is_that_of_the_committed_reproduction(name):
    source = json.loads((ROOT / SHIPPED / name / SOURCE).read_text())
    stages = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    locked = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}
    assert locked[source["out"]] == source["md5"], "run `python -m diffground.reproduction.ship`"
    assert (ROOT / SHIPPED / name / "README.md").stat().st_size > 200


def test_docstrings_of_the_api_name_what_is_raised():
    tree = ast.parse((ROOT / "src/diffground/grounded.py").read_text())
    methods = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.FunctionDef) and n.name in ("from_pretrained", "segment", "__call__")
    ]
    assert len(methods) == 3
    for method in methods:
        assert "Raises: UserError" in (ast.get_docstring(method) or ""), method.name
