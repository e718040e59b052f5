"""Runs commands and Python blocks of the documentation in the current folder, one after another in one process.

    python run_documented.py TODO.json RESULTS.json

TODO: a list of [kind, text], kind 'command' or 'python'. RESULTS: text -> '' or what went wrong. params.yaml and the
chosen profile are put back after each.
"""

import contextlib
import io
import json
import shlex
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np

RESTORED = [Path("params.yaml"), Path("conf/chosen.yaml")]
IN_THIS_PROCESS = "diffground"
"""Other programs, and `diffground reproduce`, which starts stages, run in a process of their own."""


def run_command(text):
    program, *arguments = shlex.split(text)
    if program != IN_THIS_PROCESS or arguments == ["reproduce"]:
        ran = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=False)
        return "" if ran.returncode == 0 else f"exit code {ran.returncode}\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}"
    from diffground.cli.main import main

    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            main(arguments)
    except SystemExit as ended:
        return "" if not ended.code else f"exit code {ended.code}\n{output.getvalue()[-2000:]}"
    return ""


def run_python(code):
    images = np.zeros((2, 96, 96, 3), dtype=np.uint8)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(code, "block", "exec"), {"images": images})
    return ""


def main():
    results = {}
    for kind, text in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        kept = {path: path.read_bytes() for path in RESTORED if path.is_file()}
        try:
            results[text] = (run_command if kind == "command" else run_python)(text)
        except Exception:
            results[text] = traceback.format_exc()[-3000:]
        for path in RESTORED:
            if path in kept:
                path.write_bytes(kept[path])
            else:
                path.unlink(missing_ok=True)
    Path(sys.argv[2]).write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main()
