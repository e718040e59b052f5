"""Each stage of dvc.yaml depends on exactly the code that can change its outputs."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from diffground.reproduction.dependencies import WITHOUT_EFFECT, code_of, with_derived_code

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
STAGES = yaml.safe_load(TEXT)["stages"]

LOADED = """
import json, runpy, sys
sys.path.insert(0, "stages")
loaded = {}
for stage in sys.argv[1:]:
    for name in [name for name in sys.modules if name == "_stage" or name.startswith("diffground")]:
        del sys.modules[name]
    runpy.run_path(f"stages/{stage}.py", run_name="stage")
    loaded[stage] = {
        name: module.__file__ for name, module in sys.modules.items()
        if name.startswith("diffground.") and getattr(module, "__file__", None)
    }
print(json.dumps(loaded))
"""
"""One process for all stages, as other packages take seconds to import; each begins without a module of this one."""


def code_deps(stage):
    return {path for path in STAGES[stage]["deps"] if path.startswith(("src/", "stages/"))}


def test_dvc_yaml_has_the_derived_code():
    assert with_derived_code(TEXT, root=ROOT) == TEXT, "run `make deps`"
    assert {stage: sorted(code_deps(stage)) for stage in STAGES} == {
        stage: sorted(code_of(stage, root=ROOT)) for stage in STAGES
    }


@pytest.mark.parametrize("before", ["      - models/mini/backbone\n", "      - review/synthetic\n    params:\n"])
def test_code_that_a_stage_does_not_import_is_removed_wherever_it_stands(before):
    start = TEXT.index("  train_maskformer:\n")
    place = TEXT.index(before, start) + len("      - review/synthetic\n" if "params" in before else "")
    too_wide = f"{TEXT[:place]}      - src/diffground/evaluation\n{TEXT[place:]}"
    assert with_derived_code(too_wide, root=ROOT) == TEXT


@pytest.fixture(scope="module")
def loaded():
    """Stage -> name and file of each module of this package that its script loads."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", LOADED, *STAGES]
    ran = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_what_its_script_loads(loaded, stage):
    without = tuple(f"diffground.{name}" for name in WITHOUT_EFFECT)
    # stages/_stage.py reads the parameters and opens the tracking run: what these load is in no stage's deps
    of_every_stage = {"diffground.reproduction.metrics", "diffground.runtime.fingerprint", "diffground.vocabulary"}
    files = {
        name: Path(file).relative_to(ROOT).as_posix()
        for name, file in loaded[stage].items()
        if not name.startswith(without) and name not in of_every_stage and not file.endswith("__init__.py")
    }
    assert f"stages/{stage}.py" in code_deps(stage)
    assert {name: file for name, file in files.items() if file not in code_deps(stage)} == {}


def test_packages_hold_no_code_of_their_own():
    for path in (ROOT / "src/diffground").rglob("*/__init__.py"):
        if path.parent.name != "tracking":
            statements = ast.parse(path.read_text(encoding="utf-8")).body
            assert all(isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) for s in statements), path


def test_modules_without_effect_are_there():
    for name in WITHOUT_EFFECT:
        place = ROOT / "src" / "diffground" / name.replace(".", "/")
        assert place.is_dir() or place.with_suffix(".py").is_file(), f"{name} moved; correct WITHOUT_EFFECT"


def test_lazy_imports_and_data_files_count():
    assert "src/diffground/detection/transformers_backend.py" in code_of("detect", root=ROOT)
    assert "src/diffground/data/stickers/art.yaml" in code_of("prepare_data", root=ROOT)
    assert "src/diffground/report/templates/page.html.j2" in code_of("report", root=ROOT)


TOUCHED = {
    "src/diffground/evaluation/miou.py": {"evaluate_baselines", "evaluate_grounding", "evaluate_zs3"},
    "src/diffground/grounding/module.py": {"train_grounding", "evaluate_grounding", "synthesize"},
    "src/diffground/report/curves.py": {"report"},
    "src/diffground/runtime/ray/workers.py": set(),
    "src/diffground/segmentation/train.py": {"train_maskformer"},
}
"""File -> stages whose own code it is."""
THEN = {
    "src/diffground/evaluation/miou.py": {"evaluate_baselines", "evaluate_grounding", "evaluate_zs3", "report"},
    "src/diffground/grounding/module.py": {
        "train_grounding",
        "evaluate_grounding",
        "synthesize",
        "train_maskformer",
        "evaluate_zs3",
        "report",
    },
    "src/diffground/report/curves.py": {"report"},
    "src/diffground/runtime/ray/workers.py": set(),
    "src/diffground/segmentation/train.py": {"train_maskformer", "evaluate_zs3", "report"},
}
"""File -> stages that run again after a change."""


@pytest.fixture(scope="module")
def status(tmp_path_factory):
    """What `dvc status` says in a clone in which each file of TOUCHED is changed: stage -> changed dependencies."""
    clone = tmp_path_factory.mktemp("touched") / "clone"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            (clone / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(["git", "init", "-q"], cwd=clone, check=True)
    for name in TOUCHED:
        with (clone / name).open("a", encoding="utf-8") as file:
            file.write("# touched\n")
    ran = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"], cwd=clone, capture_output=True, text=True, check=True
    )
    changed = {}
    for stage, entries in json.loads(ran.stdout).items():
        deps = [entry["changed deps"] for entry in entries if isinstance(entry, dict) and "changed deps" in entry]
        changed[stage] = {path for of_stage in deps for path in of_stage}
    return changed


@pytest.mark.parametrize("touched", TOUCHED)
def test_dvc_status_names_the_stages_of_a_touched_file(status, touched):
    assert {stage for stage, changed in status.items() if touched in changed} == TOUCHED[touched]


@pytest.mark.parametrize("touched", TOUCHED)
def test_what_follows_runs_again_and_nothing_else(touched):
    outputs = {
        stage: {
            next(iter(out)) if isinstance(out, dict) else out for key in ("outs", "metrics") for out in of.get(key, [])
        }
        for stage, of in STAGES.items()
    }
    again = set(TOUCHED[touched])
    while True:
        written = set().union(*(outputs[stage] for stage in again)) if again else set()
        following = {stage for stage, of in STAGES.items() if written & set(of["deps"])}
        if following <= again:
            break
        again |= following
    assert again == THEN[touched]
