import os
import subprocess
import sys

import pytest

from diffground.runtime.openmp import wait_briefly


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": "1000"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_what_the_user_has_set_is_kept(given, expected):
    wait_briefly(given)
    assert given == expected


def test_the_library_that_torch_computes_with_reads_it():
    code = "from diffground.runtime.openmp import wait_briefly; wait_briefly(); import torch"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    told = subprocess.run(
        [sys.executable, "-c", code], env={**environment, "OMP_DISPLAY_ENV": "verbose"}, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    assert "GOMP_SPINCOUNT = '1000'" in told.stderr
