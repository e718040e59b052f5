"""`mlflow models serve` on a loopback port, and clients of it that use nothing of MLflow."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import psutil

START_TIMEOUT_S = 120


class ModelServer:
    """The server process of one model URI. `wait` for it, then `post`."""

    def __init__(self, uri, *, store, log, cwd):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = ["mlflow", "models", "serve", "-m", uri, "--env-manager", "local", "--port", str(self.port)]
        env = {**os.environ, "MLFLOW_TRACKING_URI": store, "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}
        self._log = log
        with log.open("w") as file:
            self._process = subprocess.Popen(
                [*command, "--timeout", "600"], stdout=file, stderr=file, env=env, cwd=cwd, start_new_session=True
            )

    def wait(self):
        until = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < until and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=1):
                    return self
            except OSError:
                time.sleep(0.1)
        raise AssertionError(self._log.read_text()[-3000:])

    def post(self, body):
        """(status, decoded JSON) of a request."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/invocations", content, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def memory(self):
        """Resident bytes of the largest of its processes, which holds the model."""
        started = psutil.Process(self._process.pid)
        return max(process.memory_info().rss for process in [started, *started.children(recursive=True)])

    def stop(self):
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
