"""`diffground sync`, as a user types it after a server was away."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import diffground
from diffground.tracking import start_run


def sync():
    env = {**os.environ, "PYTHONPATH": str(Path(diffground.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-m", "diffground", "sync"], env=env, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_sync_delivers_the_journal_once_the_store_is_back(params, store, runs_of, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    shutil.copyfile(tmp_path / "params.yaml", "params.yaml")
    with sqlite3.connect(store.removeprefix("sqlite:///")) as database:
        database.execute("begin exclusive")
        with start_run("generate", params) as run:
            run.log_metrics({"loss": 0.5})
        code, out, error = sync()
        database.rollback()
    assert (code, out) == (2, "")
    assert error.startswith(f"error: {store} is away (database is locked)") and error.count("\n") == 1
    assert error.endswith("; 0 of 1 runs delivered, the others stay in .mlflow-journal\n")
    assert sync() == (0, ".mlflow-journal: 1 runs delivered\n", "")
    (run,) = runs_of("generate")
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"loss": 0.5})
