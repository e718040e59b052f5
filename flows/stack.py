"""Prefect's server, a worker and MLflow's UI on this machine: `python -m flows up` and `status`."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffground.errors import UserError
from diffground.reproduction import paths
from diffground.reproduction.commands import output_of
from diffground.reproduction.config import load_params
from diffground.tracking import newest_page, without_password
from diffground.tracking.pages import ALL_EXPERIMENTS
from flows.gpus import LIMIT, visible_gpus
from flows.places import HOME, MLFLOW_UI, ROOT, command_environment, prefect_environment
from flows.process import Supervised

HOST = "127.0.0.1"
POOLS = ("cpu", "gpu")
_STATE = HOME / "up.json"
_START_TIMEOUT_S = 300.0
_STOP_GRACE_S = 30.0


@dataclass(frozen=True)
class Ports:
    """Where the two UIs listen, on 127.0.0.1 only."""

    prefect: int = 4200
    mlflow: int = 5000


@dataclass(frozen=True)
class Stack:
    """The servers that `up` has started, as recorded in `.prefect/up.json`."""

    pid: int
    """Of `up`."""
    prefect: str
    """Address of Prefect's UI."""
    mlflow: str
    """Address of MLflow's UI, or of the tracking server."""
    pools: tuple[str, ...]
    """Work pools that have a worker here."""

    @property
    def api_url(self) -> str:
        return f"{self.prefect}/api"

    def environment(self) -> dict[str, str]:
        """Environment of runs on this server."""
        return prefect_environment(api_url=self.api_url) | {MLFLOW_UI: self.mlflow}


def running_stack() -> Stack | None:
    """The running servers; None without any."""
    try:
        values = json.loads(_STATE.read_text(encoding="utf-8"))
        stack = Stack(**{**values, "pools": tuple(values["pools"])})
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None
    return stack if _answers(f"{stack.api_url}/health") else None


def status() -> str:
    """The running servers, workers and flow runs, one line each."""
    stack = running_stack()
    if stack is None:
        return "no server is running; `python -m flows up` starts one, `python -m flows reproduce` works without one"
    lines = [
        f"Prefect  {stack.prefect} (process {stack.pid})",
        f"MLflow   {stack.mlflow}",
        f"workers  {', '.join(stack.pools)}",
    ]
    for run in _active_runs(stack):
        lines.append(f"run      {run['name']}: {run['state_name']}, {stack.prefect}/runs/flow-run/{run['id']}")
    return "\n".join(lines)


def up(ports: Ports) -> None:
    """Start everything, print the addresses, and run until Ctrl-C or SIGTERM, which ends all of it.

    Raises: UserError, which names the log, for a taken port, and if a part does not start or ends by itself.
    """
    for name, port in (("--port", ports.prefect), ("--mlflow-port", ports.mlflow)):
        if not _is_free(port):
            raise UserError(f"{name}: {HOST}:{port} is taken; stop the program that uses it, or choose another port")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a background shell ignores SIGINT
        signal.signal(number, signal.default_int_handler)
    tracking_uri = os.environ.get("MLFLOW_TRACKING_URI") or load_params(ROOT / paths.PARAMS).tracking.uri
    served = tracking_uri.startswith("http")
    stack = Stack(
        pid=os.getpid(),
        prefect=f"http://{HOST}:{ports.prefect}",
        mlflow=without_password(tracking_uri) if served else f"http://{HOST}:{ports.mlflow}",
        pools=POOLS if visible_gpus() else ("cpu",),
    )
    HOME.mkdir(exist_ok=True)
    env = command_environment() | stack.environment()
    parts: dict[str, Supervised] = {}
    try:
        parts["server"] = _start("server", _prefect("server", "start", "--host", HOST, "--port", ports.prefect), env)
        if not served:
            command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(ports.mlflow)]
            command += ["--backend-store-uri", tracking_uri, "--workers", "1"]
            parts["mlflow"] = _start("mlflow", command, env)
        _wait(f"{stack.api_url}/health", parts)
        _close_runs(stack)
        _set_up_server(stack, env)
        for pool in stack.pools:
            arguments = ("worker", "start", "--pool", pool, "--name", f"{pool} worker", "--type", "process")
            parts[f"worker {pool}"] = _start(f"worker-{pool}", _prefect(*arguments), env)
        if not served:
            _wait(stack.mlflow, parts)
        lines = _links(stack)
        _STATE.write_text(json.dumps(asdict(stack)) + "\n", encoding="utf-8")
        print("\n".join(lines), flush=True)
        while True:
            _check(parts)
            time.sleep(1)
    except KeyboardInterrupt:
        print("\nstopping", flush=True)
    finally:
        _STATE.unlink(missing_ok=True)
        for name in [name for name in parts if name.startswith("worker")]:
            parts.pop(name).stop()
        _close_runs(stack)
        for part in reversed(parts.values()):
            part.stop()


def _links(stack: Stack) -> list[str]:
    """What `up` prints: an address for each thing to look at."""
    try:
        page = newest_page(load_params(ROOT / paths.PARAMS).tracking)
    except UserError:  # the store is away now; the page of all experiments shows when it is back
        page = ALL_EXPERIMENTS
    report = ROOT / paths.TABLES.parent / "index.html"
    return [
        f"deployments         {stack.prefect}/deployments",
        f"runs, side by side  {stack.mlflow.rstrip('/')}{page}",
        *([f"report              {report.as_uri()}"] if report.is_file() else []),
        f"workers             {', '.join(stack.pools)}",
        "Start a run on the page of the deployments, or with `python -m flows reproduce`; Ctrl-C stops everything.",
    ]


def _active_runs(stack: Stack) -> list[dict[str, Any]]:
    active = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}}
    runs: list[dict[str, Any]] = _post(f"{stack.api_url}/flow_runs/filter", active)
    return runs


def _close_runs(stack: Stack) -> None:
    """Mark runs of deployments as crashed: their workers have ended and cannot report it."""
    if not _answers(f"{stack.api_url}/health"):
        return
    crashed = {"type": "CRASHED", "name": "Crashed", "message": "the worker ended; start the run again to resume"}
    for run in _active_runs(stack):
        if run["deployment_id"] and run["work_pool_name"] in stack.pools:
            _post(f"{stack.api_url}/flow_runs/{run['id']}/set_state", {"state": crashed, "force": True})


def _set_up_server(stack: Stack, env: Mapping[str, str]) -> None:
    """Create missing work pools and the limit of GPU slots, and update the deployments of prefect.yaml."""
    os.environ.update(stack.environment())
    # imported late: Prefect reads its settings when it is imported
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client:
        for pool in POOLS:
            with suppress(ObjectAlreadyExists):  # a user may have changed it, even its type
                client.create_work_pool(WorkPoolCreate(name=pool, type="process", base_job_template=template))
        with suppress(ObjectAlreadyExists):
            client.create_global_concurrency_limit(
                GlobalConcurrencyLimitCreate(name=LIMIT, limit=max(len(visible_gpus()), 1))
            )
    output_of(_prefect("--no-prompt", "deploy", "--all"), cwd=ROOT, env=env)


def _prefect(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "prefect", *map(str, arguments)]


def _start(name: str, command: Sequence[str], env: Mapping[str, str]) -> Supervised:
    return Supervised(command, cwd=ROOT, env=env, log=_log(name), grace_s=_STOP_GRACE_S)


def _log(name: str) -> Path:
    return HOME / f"{name.replace(' ', '-')}.log"


def _wait(url: str, parts: Mapping[str, Supervised]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not _answers(url):
        _check(parts)
        if time.monotonic() > deadline:
            raise UserError(f"{url} does not answer after {_START_TIMEOUT_S:.0f} s; see the logs in {HOME.name}/")
        time.sleep(0.2)


def _check(parts: Mapping[str, Supervised]) -> None:
    for name, part in parts.items():
        if part.poll() is not None:
            raise UserError(f"the {name} ended by itself; see {_log(name).relative_to(ROOT)}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def _post(url: str, content: object) -> Any:
    data, headers = json.dumps(content).encode(), {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data=data, headers=headers), timeout=10) as answer:
        return json.load(answer)


def _is_free(port: int) -> bool:
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return False
    return True
