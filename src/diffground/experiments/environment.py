"""The environment of the commands that run an experiment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from diffground.tracking.journal import ENVIRONMENT_VARIABLE as JOURNAL_VARIABLE
from diffground.tracking.journal import journal_folder


def environment(clone: Path, *, root: Path, name: str, tracking_uri: str) -> dict[str, str]:
    """For commands in `clone` of `root`: its code, this Python, and an MLflow run with the name of the experiment."""
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(clone / "src"), os.environ.get("PYTHONPATH", "")])),
        "DVC_EXP_NAME": name,
        "MLFLOW_TRACKING_URI": tracking_uri,
        # the clone is removed when the experiment is saved; undelivered entries must stay
        JOURNAL_VARIABLE: str((root / journal_folder()).resolve()),
    }
