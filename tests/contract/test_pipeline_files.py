"""dvc.yaml, params.yaml, conf/ and stages/ agree with each other and with what the code imports."""

import ast
import sys
from pathlib import Path

import pytest
import yaml

from diffground.reproduction.composition import compose_params

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "diffground"
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
STAGES = [
    "prepare_data",
    "sample_prompts",
    "generate",
    "detect",
    "invert_real",
    "train_grounding",
    "evaluate_baselines",
    "evaluate_grounding",
    "synthesize",
    "text2mask",
    "train_maskformer",
    "evaluate_zs3",
    "report",
]
SHARDED = ("generate", "detect", "invert_real", "synthesize", "text2mask")
REVIEWS = ("review/test", "review/synthetic")
NOT_IN_OUTPUTS = {"runtime", "tracking"}
INSTRUCTION_SET = "runtime.instruction_set"


def entries(stage, key):
    """Paths of a stage's deps or outs, with their options."""
    return {
        path: options or {}
        for entry in PIPELINE[stage].get(key, [])
        for path, options in (entry.items() if isinstance(entry, dict) else [(entry, None)])
    }


def sections_read(script):
    """Names X of every `params.X` in a stage script."""
    return {
        node.attr
        for node in ast.walk(ast.parse(script.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "params"
    }


def flat_params(values, prefix=""):
    keys = set()
    for key, value in values.items():
        keys.add(f"{prefix}{key}")
        if isinstance(value, dict):
            keys |= flat_params(value, f"{prefix}{key}.")
    return keys


def test_the_stages_are_the_scripts():
    assert sorted(PIPELINE) == sorted(STAGES)
    assert sorted(path.stem for path in (ROOT / "stages").glob("[!_]*.py")) == sorted(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_its_script_and_depends_on_it(stage):
    assert PIPELINE[stage]["cmd"] == f"python stages/{stage}.py"
    assert f"stages/{stage}.py" in entries(stage, "deps")


@pytest.mark.parametrize("stage", STAGES)
def test_every_dependency_exists_or_is_made_by_a_stage(stage):
    made = {path for name in STAGES for key in ("outs", "metrics", "plots") for path in entries(name, key)}
    named = [path.replace("${vocabulary.file}", PARAMS["vocabulary"]["file"]) for path in entries(stage, "deps")]
    inputs = [path for path in named if not path.startswith("models/mini/")]
    made_here = {str(folder) for path in made for folder in (Path(path), *Path(path).parents)}
    assert [path for path in inputs if path not in made_here and not (ROOT / path).exists()] == []


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_named_in_the_pipeline_exist(stage):
    named = PIPELINE[stage].get("params", [])
    assert all(isinstance(key, str) for key in named)
    assert sorted(set(named) - flat_params(PARAMS)) == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_names_every_section_of_parameters_that_it_reads(stage):
    named = {key.split(".")[0] for key in PIPELINE[stage].get("params", [])}
    assert sorted(sections_read(ROOT / "stages" / f"{stage}.py") - NOT_IN_OUTPUTS - named) == []


@pytest.mark.parametrize("stage", STAGES)
def test_where_and_how_fast_it_runs_reruns_nothing(stage):
    named = PIPELINE[stage].get("params", [])
    assert [key for key in named if key.split(".")[0] in NOT_IN_OUTPUTS and key != INSTRUCTION_SET] == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_computes_with_torch_runs_again_for_another_instruction_set(stage):
    computes = "setup(params.runtime)" in (ROOT / "stages" / f"{stage}.py").read_text()
    assert (INSTRUCTION_SET in PIPELINE[stage].get("params", [])) == computes


@pytest.mark.parametrize("stage", STAGES)
def test_the_instruction_set_is_limited_before_anything_else_is_imported(stage):
    imports = [
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.parse((ROOT / "stages" / f"{stage}.py").read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    others = [name for name in imports if name.partition(".")[0] not in sys.stdlib_module_names]
    assert others[0] == "_stage"


@pytest.mark.parametrize("stage", SHARDED)
def test_sharded_outputs_survive_a_killed_run(stage):
    outs = entries(stage, "outs")
    assert outs
    assert all(options.get("persist") for options in outs.values())


@pytest.mark.parametrize("stage", STAGES)
def test_metrics_are_committed_and_named_for_their_stage(stage):
    for path, options in entries(stage, "metrics").items():
        assert path == f"reports/metrics/{stage}.json"
        assert options.get("cache") is False


def test_a_verdict_on_synthetic_samples_runs_the_trainings_again_and_what_depends_on_them():
    made = {stage: {*entries(stage, "outs"), *entries(stage, "metrics")} for stage in STAGES}

    def after(stage):
        direct = {name for name in STAGES if made[stage] & set(entries(name, "deps"))}
        return direct.union(*(after(name) for name in direct))

    readers = {folder: {stage for stage in STAGES if folder in entries(stage, "deps")} for folder in REVIEWS}
    assert readers["review/test"] == {"evaluate_baselines", "evaluate_grounding"}
    assert "train_maskformer" in readers["review/synthetic"]
    assert readers["review/synthetic"] <= {"train_maskformer", *after("train_maskformer")}
    assert not any(set(entries(stage, "deps")) & {"review", "review/mini.csv"} for stage in STAGES)
    for folder in REVIEWS:
        assert (ROOT / folder / "mini.csv").read_text() == "id,prompt,look,verdict,note\n"


def test_params_yaml_is_the_composition_of_its_profile():
    assert PARAMS["profile"] == "mini"
    assert (ROOT / "params.yaml").read_text() == compose_params("mini", conf=ROOT / "conf")


@pytest.mark.parametrize("profile", sorted(path.stem for path in (ROOT / "conf" / "profile").glob("*.yaml")))
def test_every_profile_composes_to_the_same_keys(profile):
    composed = yaml.safe_load(compose_params(profile, conf=ROOT / "conf"))
    assert composed["profile"] == profile
    # only data sets of masks on disk have it; the others keep its default
    assert set(flat_params(composed)) - {"data.binary_label"} == set(flat_params(PARAMS))


def test_every_parameter_is_explained():
    files = [PACKAGE / name / "config.py" for name in ("grounding", "reproduction", "runtime", "segmentation")]
    classes = [n for file in files for n in ast.parse(file.read_text()).body if isinstance(n, ast.ClassDef)]
    assert len(classes) >= 11
    for section in classes:
        for field, following in zip(section.body, [*section.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and section.name != "Params":
                explained = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                assert explained, f"{section.name}.{ast.unparse(field.target)} has no docstring"


def test_dvc_composes_the_same_configuration_and_ignores_caches():
    settings = (ROOT / ".dvc" / "config").read_text()
    for line in ("enabled = true", "config_dir = conf", "config_name = config"):
        assert line in settings
    assert "__pycache__/" in (ROOT / ".dvcignore").read_text().split()
