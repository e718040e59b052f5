"""prefect.yaml, the flows and what the UI's form offers agree."""

import inspect
import re
from pathlib import Path

import pytest
import yaml

pytest.importorskip("prefect")

from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

from flows.__main__ import _parser
from flows.choices import EXPERIMENTS, PIPELINE, PROFILES
from flows.stack import POOLS

ROOT = Path(__file__).parents[2]
PREFECT = yaml.safe_load((ROOT / "prefect.yaml").read_text())
DEPLOYMENTS = PREFECT["deployments"]
EXTRA = (ROOT / "pyproject.toml").read_text()


def flow_of(deployment, monkeypatch):
    monkeypatch.chdir(ROOT)
    return load_flow_from_entrypoint(deployment["entrypoint"])


def name_of(deployment):
    return f"{deployment['entrypoint'].partition(':')[2]}/{deployment['name']}"


def choices(schema):
    """Values of an enumeration, an optional one too."""
    return next(part["enum"] for part in (schema, *schema.get("anyOf", [])) if "enum" in part)


def test_every_flow_has_a_deployment_and_every_pool_one_too():
    assert {name_of(d).partition("/")[0] for d in DEPLOYMENTS} == {"reproduce", "ablate", "train_checkpoints"}
    assert {d["work_pool"]["name"] for d in DEPLOYMENTS} == set(POOLS)
    assert len({name_of(d) for d in DEPLOYMENTS}) == len(DEPLOYMENTS)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=name_of)
def test_the_entrypoint_is_a_flow_that_takes_the_parameters(deployment, monkeypatch):
    flow = flow_of(deployment, monkeypatch)
    assert flow.name == name_of(deployment).partition("/")[0]
    flow.validate_parameters(deployment.get("parameters", {}))
    schema = parameter_schema(flow)
    required = set(schema.required) - set(deployment.get("parameters", {}))
    assert required == set(), "a run from the UI's list starts with no further question"
    assert all(entry.get("description") for entry in schema.properties.values())


def test_the_form_offers_profiles_experiments_and_stages(monkeypatch):
    properties = parameter_schema(flow_of(DEPLOYMENTS[0], monkeypatch)).properties
    assert choices(properties["profile"]) == list(PROFILES)
    assert choices(properties["experiment"]) == list(EXPERIMENTS)
    assert choices(properties["first_stage"]) == choices(properties["last_stage"]) == list(PIPELINE.stages)


def test_no_path_is_absolute():
    assert re.findall(r"[\s\"':](/[a-z]\S*)", (ROOT / "prefect.yaml").read_text()) == []


def test_the_version_is_the_one_of_the_extra():
    assert f'"prefect=={PREFECT["prefect-version"]}"' in EXTRA


def test_only_flows_imports_prefect():
    importing = [
        path.relative_to(ROOT).as_posix()
        for folder in ("src", "stages", "pretrain")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"^\s*(import|from) prefect\b", path.read_text(), re.MULTILINE)
    ]
    assert importing == []


@pytest.mark.parametrize(
    "arguments", [["reproduce"], ["ablate", "--profile", "smoke", "--target", "detect"], ["train-checkpoints"]]
)
def test_the_arguments_of_a_command_are_parameters_of_its_flow(arguments, monkeypatch):
    given = vars(_parser().parse_args(arguments))
    flow = flow_of({"entrypoint": f"flows/{given['flow']}.py:{given['flow']}"}, monkeypatch)
    parameters = inspect.signature(flow.fn).parameters
    assert set(given) - {"command", "run", "flow"} <= set(parameters)
    required = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
    assert required <= set(given)
