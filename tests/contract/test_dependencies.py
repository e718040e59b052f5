"""pyproject.toml and requirements.lock agree, and the lock can be installed with hashes checked."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from diffground.entry_point import PIPELINE_PACKAGES

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = {name: [Requirement(text) for text in texts] for name, texts in PROJECT["optional-dependencies"].items()}
PIPELINE = EXTRAS["pipeline"]
OTHER_EXTRAS = {name: requirements for name, requirements in EXTRAS.items() if name != "pipeline"}
FURTHER = [r for requirements in OTHER_EXTRAS.values() for r in requirements if r.name != "diffground"]
IMPORTED_AS = {"hydra-core": "hydra"}
"""Packages of the extra `pipeline` whose module has another name than they."""
LOCK = (ROOT / "requirements.lock").read_text()


def locked_requirements():
    """Name -> every locked requirement; a name has several where platforms or Python versions differ."""
    locked = {}
    for line in LOCK.splitlines():
        if re.match(r"[a-zA-Z0-9]", line):
            requirement = Requirement(line.removesuffix("\\").strip())
            locked.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return locked


LOCKED = locked_requirements()


def version_of(requirement):
    return str(requirement.specifier).removeprefix("==")


@pytest.mark.parametrize("requirement", CORE + PIPELINE, ids=lambda r: r.name)
def test_every_dependency_has_a_lower_bound_and_a_locked_version_within_its_bounds(requirement):
    assert ">=" in str(requirement.specifier)
    locked = LOCKED[canonicalize_name(requirement.name)]
    assert all(requirement.specifier.contains(version_of(entry)) for entry in locked)


@pytest.mark.parametrize("requirement", FURTHER, ids=lambda r: r.name)
def test_the_other_extras_are_bounded_and_locked_within_their_bounds(requirement):
    # fastapi comes with prefect, whose pin bounds it from below
    assert re.search(">=|==", str(requirement.specifier)) or requirement.name == "fastapi"
    locked = LOCKED[canonicalize_name(requirement.name)]
    assert all(requirement.specifier.contains(version_of(entry)) for entry in locked)


def test_every_locked_version_is_exact_and_carries_sha256_hashes():
    entries = re.split(r"\n(?=[a-zA-Z0-9])", LOCK)[1:]
    assert len(entries) == sum(len(requirements) for requirements in LOCKED.values()) > 100
    for entry in entries:
        assert re.match(r"[\w.\-]+(\[[\w,\-]+\])?==[\w.+]+( ; .+)? \\\n", entry), entry.splitlines()[0]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]


def test_the_lock_names_no_index_and_no_address():
    assert not re.search(r"://|--(extra-)?index-url|--find-links|\bfile:", LOCK)


def test_the_locked_versions_go_together_with_the_flows_extra():
    flows = {r.name: r for r in EXTRAS["flows"]}
    assert str(flows["prefect"].specifier) == "==3.8.8"
    assert not flows["fastapi"].specifier.contains("0.140.0")
    for entry in LOCKED.get("fastapi", []):
        assert flows["fastapi"].specifier.contains(version_of(entry))


def test_the_extras_are_there_and_bring_the_pipeline():
    assert set(EXTRAS) == {"pipeline", "flows", "ray", "s3", "hf", "onnx", "studio", "docs", "dev"}
    for requirements in OTHER_EXTRAS.values():
        assert Requirement("diffground[pipeline]") in requirements


def test_the_entry_point_knows_every_package_of_the_pipeline():
    modules = {IMPORTED_AS.get(r.name, r.name.replace("-", "_")) for r in PIPELINE}
    assert modules == PIPELINE_PACKAGES
