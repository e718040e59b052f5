"""How threads wait for each other."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

_SPIN_COUNT = "1000"


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let the threads of an OpenMP region sleep soon instead of spinning until the last one arrives.

    GNU OpenMP, which PyTorch computes with on Linux, spins for milliseconds. Where another process takes a core, a
    thread then spins at each barrier for as long as another one waits for that core: many small layers get 10 to 30
    times slower. It must be called before torch is imported. What the user has set is kept.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)
