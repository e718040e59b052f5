"""`python -m flows` up to where a server would start."""

import os
import socket
import subprocess
import sys

import flows.stack
from flows.places import ROOT, command_environment
from flows.stack import Stack, running_stack, status


def run(*arguments):
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [sys.executable, "-m", "flows", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )


def test_a_taken_port_is_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("up", "--port", str(port))
    assert done.returncode == 2
    taken = f"error: --port: 127.0.0.1:{port} is taken; stop the program that uses it, or choose another port\n"
    assert done.stderr == taken


def test_a_matrix_without_values_is_one_line():
    done = run("ablate", "--profile", "smoke", "--matrix", "grounding.seed")
    assert (done.returncode, done.stderr) == (2, "error: --matrix must be KEY=A,B, got 'grounding.seed'\n")


def test_without_a_server_the_status_says_what_starts_one(tmp_path, monkeypatch):
    monkeypatch.setattr(flows.stack, "_STATE", tmp_path / "up.json")
    assert running_stack() is None
    assert status().startswith("no server is running; `python -m flows up` starts one")
    (tmp_path / "up.json").write_text('{"pid": 1, "prefect": "http://127.0.0.1:1", "mlflow": "", "pools": ["cpu"]}')
    assert running_stack() is None, "what the file tells of has ended"


def test_what_runs_on_a_server_sends_nothing_anywhere():
    settings = Stack(pid=1, prefect="http://127.0.0.1:4200", mlflow="http://127.0.0.1:5000", pools=()).environment()
    assert settings["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    assert settings["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert settings["DO_NOT_TRACK"] == "1"
    assert settings["MLFLOW_DISABLE_TELEMETRY"] == "true", "MLflow does not read a DO_NOT_TRACK of 1"
    assert command_environment()["DVC_NO_ANALYTICS"] == "1"
