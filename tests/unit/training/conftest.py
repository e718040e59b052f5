"""Makes the toy trainings importable in other processes, which know nothing of pytest's way to import tests."""

import sys
from pathlib import Path

import pytest

from tests.unit.segmentation.conftest import backbone

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "grounding")]

__all__ = ["backbone"]


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    """As many as the other processes have."""


@pytest.fixture
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
