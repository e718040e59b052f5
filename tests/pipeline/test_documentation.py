"""What README and docs show runs in a fresh clone; test_reproduction.py runs what needs the results of a reproduction.

docs/commands_not_run.md names the commands that are left out, with the reason.
"""

import pytest

from tests.pipeline.documented_runs import BLOCKS, COMMANDS, need_a_reproduction, results_of
from tests.scratch import copy_of_the_working_tree


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    repository = copy_of_the_working_tree(tmp_path_factory.mktemp("documented") / "clone")
    repository.commit("start")
    return results_of(repository, reproduced=False)


@pytest.mark.parametrize("text", need_a_reproduction([*COMMANDS, *BLOCKS.values()], needed=False))
def test_what_the_documentation_shows_runs_in_a_fresh_clone(results, text):
    assert results[text] == ""
