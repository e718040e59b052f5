"""`python -m flows up` in a copy of the repository: what it starts, where that listens, and that all of it ends."""

import json
import re
import signal
import socket
import time
import urllib.request

import psutil
import pytest

from tests.scratch import copy_of_the_working_tree

pytest.importorskip("prefect")

DEADLINE_S = 600
pytestmark = pytest.mark.timeout(3 * DEADLINE_S)


def free_ports(num):
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(num)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture
def running(tmp_path):
    """The repository, the process of `up` once everything has started, and the two ports."""
    repository = copy_of_the_working_tree(tmp_path / "repository")
    (repository.root / "reports/index.html").touch()  # a DVC output, which the copy does not have
    ports = free_ports(2)
    options = ("--port", str(ports[0]), "--mlflow-port", str(ports[1]))
    process = repository.start("python", "-m", "flows", "up", *options, CUDA_VISIBLE_DEVICES="")
    try:
        wait_until(lambda: (repository.root / ".prefect/up.json").is_file() or process.poll() is not None)
        assert process.poll() is None, process.communicate()[0]
        yield repository, process, ports
    finally:
        process.kill()  # its children end with it
        process.communicate()


def wait_until(condition):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.5)


def ask(port, path, question=None):
    """Answer of Prefect's API."""
    data = None if question is None else json.dumps(question).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/{path}", data=data, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_everything_starts_on_loopback_and_ends(running):
    repository, process, (port, mlflow_port) = running
    assert repository.run("python", "-m", "flows", "status").splitlines() == [
        f"Prefect  http://127.0.0.1:{port} (process {process.pid})",
        f"MLflow   http://127.0.0.1:{mlflow_port}",
        "workers  cpu",
    ]
    assert {pool["name"] for pool in ask(port, "work_pools/filter", {})} >= {"cpu", "gpu"}
    limit = ask(port, "v2/concurrency_limits/gpu")
    assert (limit["limit"], limit["active"]) == (1, True)
    assert len(ask(port, "deployments/filter", {})) == 5
    wait_until(lambda: "cpu worker" in {worker["name"] for worker in ask(port, "work_pools/cpu/workers/filter", {})})

    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    listening = [
        connection.laddr
        for member in family
        for connection in member.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {address.port for address in listening} >= {port, mlflow_port}
    assert {address.ip for address in listening} <= {"127.0.0.1", "::1"}

    started = [member.environ() for member in family[1:]]
    assert len(started) > 2
    assert {environment["MLFLOW_DISABLE_TELEMETRY"] for environment in started} == {"true"}

    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, output
    links = dict(re.findall(r"^(\w[\w, ]+\w)  +(\S+)$", output, re.MULTILINE))
    assert links == {
        "deployments": f"http://127.0.0.1:{port}/deployments",
        "runs, side by side": f"http://127.0.0.1:{mlflow_port}/#/experiments",  # nothing was run here
        "report": (repository.root / "reports/index.html").as_uri(),
        "workers": "cpu",
    }
    wait_until(lambda: not any(member.is_running() for member in family))
    assert not (repository.root / ".prefect/up.json").exists()
