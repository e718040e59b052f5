"""Real stores: SQLite files, and an MLflow server on a loopback port that can be killed and restarted."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from diffground.reproduction.composition import compose_params
from diffground.reproduction.config import load_params
from diffground.reproduction.smoke import build_components
from diffground.tracking.store import open_client

CONF = Path(__file__).parents[3] / "conf"
START_TIMEOUT_S = 120


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """An SQLite store with its tables: creating them takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    open_client(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(tmp_path, empty_database):
    folder = tmp_path / "store"
    folder.mkdir()
    shutil.copyfile(empty_database, folder / "mlflow.db")
    return f"sqlite:///{folder / 'mlflow.db'}"


@pytest.fixture
def params(tmp_path, monkeypatch, store):
    """Of profile smoke, logging to `store`, in an empty current directory."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME", "DIFFGROUND_JOURNAL", "RANK"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "params.yaml"
    path.write_text(compose_params("smoke", conf=CONF, overrides=[f"tracking.uri='{store}'"]))
    return load_params(path)


@pytest.fixture
def runs_of(params):
    """Runs of a stage, None for parents; of the store of `params`, or another one."""

    def find(stage=None, *, uri=None):
        client = open_client(uri or params.tracking.uri)
        experiment = client.get_experiment_by_name(params.tracking.experiment)
        runs = client.search_runs([experiment.experiment_id]) if experiment else []
        return [run for run in runs if run.data.tags.get("diffground.stage") == stage]

    return find


class Server:
    """`mlflow server` on a loopback port that stays the same over restarts."""

    def __init__(self, folder, database):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        shutil.copyfile(database, folder / "server.db")
        self._command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--workers",
            "1",
            "--backend-store-uri",
            f"sqlite:///{folder / 'server.db'}",
            "--artifacts-destination",
            str(folder / "kept"),
        ]
        self._log = folder / "server.log"
        self._process = None

    def start(self):
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )
        until = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < until and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(self._log.read_text()[-3000:])

    def kill(self):
        if self._process is not None:
            os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path, empty_database):
    """Not started yet."""
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder, empty_database)
    yield server
    server.kill()


@pytest.fixture(scope="session")
def components(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "smoke"
    build_components(folder)
    return folder


@pytest.fixture
def params_of_server(params, server):
    return replace(params, tracking=replace(params.tracking, uri=server.uri))
