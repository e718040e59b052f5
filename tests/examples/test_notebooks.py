"""The notebooks of examples/ run from top to bottom, and are committed without outputs."""

import os

import nbformat
import pytest

from tests.scratch import WORKING_TREE, copy_of_the_working_tree

EXAMPLES = sorted((WORKING_TREE / "examples").glob("*.ipynb"))


def run_notebook(path, *, environment):
    """Execute a copy in memory in its own folder; an error in a cell fails."""
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": path.parent}})
    client.execute(env=environment)
    return notebook


def printed(notebook):
    return "".join(o.text for cell in notebook.cells for o in cell.get("outputs", ()) if o.output_type == "stream")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_a_notebook_is_committed_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) >= 5
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)


def test_first_masks():
    environment = {**os.environ, "PYTHONPATH": str(WORKING_TREE / "src")}
    notebook = run_notebook(WORKING_TREE / "examples/first_masks.ipynb", environment=environment)
    pictures = [o for cell in notebook.cells for o in cell.get("outputs", ()) if "image/png" in o.get("data", {})]
    assert len(pictures) == 5
    assert "(4, 2, 128, 128) bool float32" in printed(notebook)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_own_categories(tmp_path):
    repository = copy_of_the_working_tree(tmp_path / "clone")
    repository.commit("start")
    path = repository.root / "examples/own_categories.ipynb"
    notebook = run_notebook(path, environment=repository.environment)
    text = printed(notebook)
    assert "3 seen, 2 unseen categories" in text and "held-out images" in text
    assert "['dog', 'cat', 'horse', 'bird', 'hay bale']" in text
    assert repository.run("git", "status", "--porcelain") == "", "the clone was changed"
