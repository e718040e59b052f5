"""What a stopped command leaves behind: nothing."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from flows.process import Commands, Supervised

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60
# writes its pid and that of a child that ignores interrupts from its first moment; then waits
FAMILY = """\
import os, pathlib, signal, subprocess, sys, time
before = signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
signal.signal(signal.SIGINT, before)
pathlib.Path("pids").write_text(f"{os.getpid()} {child.pid}")
try:
    print("ready", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
"""


def python(code):
    return [sys.executable, "-c", code]


def wait_until(condition):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def family(folder):
    """The pids of FAMILY, once it has written them."""
    path = folder / "pids"
    wait_until(lambda: path.is_file() and len(path.read_text().split()) == 2)
    return [int(pid) for pid in path.read_text().split()]


def run(command, folder, **settings):
    lines = []
    code = Commands().run(command, cwd=folder, env=os.environ, on_line=lines.append, **settings)
    return code, lines


def test_lines_of_both_streams_and_the_exit_code(tmp_path):
    code = "import sys; print('out', flush=True); print('err', file=sys.stderr, flush=True); sys.exit(7)"
    assert run(python(code), tmp_path) == (7, ["out", "err"])
    assert run(python("import os; os.kill(os.getpid(), 9)"), tmp_path) == (137, [])


def test_an_exception_interrupts_the_command_and_ends_what_it_started(tmp_path):
    lines = []

    def on_line(line):
        lines.append(line)
        if line == "ready":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Commands().run(python(FAMILY), cwd=tmp_path, env=os.environ, on_line=on_line)
    assert lines == ["ready", "interrupted"]
    pids = family(tmp_path)
    wait_until(lambda: not any(alive(pid) for pid in pids))  # killed processes end a moment after their signal


def test_what_heeds_no_interrupt_is_killed_after_the_grace_period(tmp_path):
    deaf = "import signal, time; signal.signal(2, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"

    def on_line(line):
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        Commands().run(python(deaf), cwd=tmp_path, env=os.environ, on_line=on_line, grace_s=0.5)
    assert 0.5 <= time.monotonic() - start < DEADLINE_S


def test_stop_ends_commands_of_other_threads_and_lets_no_other_start(tmp_path):
    commands, codes = Commands(), []
    thread = threading.Thread(
        target=lambda: codes.append(
            commands.run(python(FAMILY), cwd=tmp_path, env=os.environ, on_line=lambda line: None)
        )
    )
    thread.start()
    pids = family(tmp_path)
    commands.stop()
    thread.join(DEADLINE_S)
    assert codes == [130]
    wait_until(lambda: not any(alive(pid) for pid in pids))
    with pytest.raises(RuntimeError, match="were stopped"):
        commands.run(python("pass"), cwd=tmp_path, env=os.environ, on_line=lambda line: None)


@pytest.mark.parametrize("ignored", [False, True], ids=["", "with SIGINT ignored, as in a shell's background"])
def test_the_death_of_whoever_started_it_ends_it_too(tmp_path, ignored):
    (tmp_path / "family.py").write_text(FAMILY)
    starter = (
        "import os, signal, sys\n"
        f"signal.signal(signal.SIGINT, signal.{'SIG_IGN' if ignored else 'SIG_DFL'})\n"
        "from pathlib import Path\n"
        "from flows.process import Supervised\n"
        "command = [sys.executable, 'family.py']\n"
        "Supervised(command, cwd=Path(), env=os.environ, log=Path('log')).poll()\n"
        "os.kill(os.getpid(), signal.SIGSTOP)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(python(starter), cwd=tmp_path, env=env)
    pids = family(tmp_path)
    wait_until(lambda: "ready" in (tmp_path / "log").read_text())
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(alive(pid) for pid in pids))
    wait_until(lambda: "interrupted" in (tmp_path / "log").read_text())


def test_a_log_gets_what_is_printed(tmp_path):
    process = Supervised(python("print('hello')"), cwd=tmp_path, env=os.environ, log=tmp_path / "log")
    wait_until(lambda: process.poll() is not None)
    assert process.stop() == 0
    assert (tmp_path / "log").read_text() == "hello\n"
