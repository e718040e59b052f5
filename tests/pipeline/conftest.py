"""A copy of the repository on profile smoke, reproduced once for all tests of a process."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from diffground.reproduction.smoke import build_components
from tests.scratch import TIMEOUT_S, copy_of_the_working_tree

HAS_PREFECT = find_spec("prefect") is not None


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.pipeline)
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


def smoke_repository(root, *, components, overrides=()):
    """A copy of this repository, set to profile smoke."""
    repository = copy_of_the_working_tree(root)
    shutil.copytree(components, root / "models" / "smoke")
    repository.run("python", "-m", "diffground", "profile", "smoke", *overrides)
    return repository


@pytest.fixture(scope="session")
def components(tmp_path_factory):
    folder = tmp_path_factory.mktemp("components") / "smoke"
    build_components(folder)
    return folder


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory, components):
    """A repository after one uninterrupted reproduction, with tracking on: by the flow, where Prefect is installed."""
    repository = smoke_repository(tmp_path_factory.mktemp("reproduced"), components=components)
    command = ("python", "-m", "flows", "reproduce", "--profile", "smoke") if HAS_PREFECT else ("dvc", "repro")
    repository.output = repository.run(*command)
    return repository
