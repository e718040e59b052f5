"""Scripts in processes that are forked from one that has imported what stages import: seconds less per call.

A call has its own process, as `python SCRIPT` has, with the given folder, environment, output and exit code. What must
not be imported before the script begins, what starts processes of its own, and what a test kills, needs a real start.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).parents[1]
STAGES = ROOT / "stages"


def run_script(
    script: Path, *arguments: str, cwd: Path, python_path: Sequence[Path] = ()
) -> subprocess.CompletedProcess[str]:
    """What `python SCRIPT ARGUMENTS` in `cwd` printed, and its exit code; the package is that of this repository.

    python_path: further folders from which it imports.
    """
    command = [str(script), *arguments]
    with tempfile.TemporaryDirectory() as folder:
        outputs = [f"{folder}/stdout", f"{folder}/stderr"]
        request = {
            "command": command,
            "cwd": str(cwd),
            "python_path": [str(path) for path in python_path],
            "environment": dict(os.environ),
            "outputs": outputs,
        }
        answer = _ask(json.dumps(request))
        texts = [Path(path).read_text(encoding="utf-8") for path in outputs]
    return subprocess.CompletedProcess(command, json.loads(answer), *texts)


def _ask(request: str) -> str:
    server = _server()
    assert server.stdin and server.stdout
    try:
        server.stdin.write(f"{request}\n")
        server.stdin.flush()
        answer = server.stdout.readline()
    except BaseException:  # a time-out of the test: the answer that is still to come is not that of the next script
        server.kill()
        _server.cache_clear()
        raise
    assert answer, "the process that scripts are forked from has ended"
    return answer


@cache
def _server() -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    started = subprocess.Popen(
        [sys.executable, __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(started.communicate)
    return started


def _import_what_stages_import() -> None:
    """In an empty folder: without params.yaml, no stage prepares anything. Its modules then have to go: a test may
    run other stages."""
    sys.path[0] = str(STAGES)
    with tempfile.TemporaryDirectory() as empty:
        os.chdir(empty)
        for script in sorted(STAGES.glob("[!_]*.py")):
            runpy.run_path(str(script), run_name="stage")
        os.chdir(ROOT)
    del sys.modules["_stage"]


def _run(request: dict) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(request["outputs"], start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    script, *_ = sys.argv = request["command"]
    sys.path[:1] = [str(Path(script).resolve().parent), *request["python_path"]]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    _import_what_stages_import()
    for line in sys.stdin:
        process = get_context("fork").Process(target=_run, args=[json.loads(line)])
        process.start()
        process.join()
        print(process.exitcode, flush=True)
