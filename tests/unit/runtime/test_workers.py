"""Several processes do what one does, and end with it, whatever happens to it or to them."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from work_for_workers import describe, die, divide, fail, fill_disk, slow_first, square

import diffground
from diffground.entry_point import TEMPORARY_FAILURE, is_full_disk
from diffground.errors import InfrastructureError, UserError
from diffground.reproduction.config import load_params
from diffground.runtime.backend import make_workers
from diffground.runtime.workers import Workers
from tests.unit.data.test_shard_map import digest, run

DEADLINE_S = 120


@pytest.fixture(scope="module")
def workers():
    with Workers(num_workers=2, num_threads=5) as started:
        yield started


def pids(workers):
    return [worker._process.pid for worker in workers._workers]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, *, at_most_s=DEADLINE_S):
    deadline = time.monotonic() + at_most_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_worker_is_this_process_and_keeps_its_threads():
    with Workers(num_threads=5) as alone:
        assert [entry[:2] for entry in alone.map(describe, [0])] == [(os.getpid(), torch.get_num_threads())]


def test_two_workers_share_out_the_threads_and_compute_repeatably(workers):
    seen = set(workers.map(describe, range(6)))
    assert {pid for pid, _, _ in seen} == set(pids(workers))
    assert len(seen) == 2
    assert {entry[1:] for entry in seen} == {(2, True)}  # 5 threads for 2


def test_results_come_in_order_and_every_advance_is_heard(workers):
    advanced = []
    assert list(workers.map(square, range(20), advance=advanced.append)) == [i * i for i in range(20)]
    assert advanced == [1] * 20
    assert list(workers.map(slow_first, range(5))) == list(range(5))
    assert list(workers.map(square, [])) == []


def test_the_processes_stay_for_the_next_map(workers):
    list(workers.map(square, [1, 2]))
    before = pids(workers)
    list(workers.map(slow_first, [1, 2]))
    assert pids(workers) == before
    assert len(before) == 2


def test_an_error_for_the_user_arrives_as_it_is_and_ends_the_others(workers):
    list(workers.map(square, [1, 2]))
    before = pids(workers)
    with pytest.raises(UserError, match=r"^generator.num_steps must be at least 1, got 0$"):
        list(workers.map(fail, range(4)))
    assert len(before) == 2
    assert not any(map(is_alive, before))
    assert list(workers.map(square, [3])) == [9], "others take their place"


def test_a_bug_brings_its_traceback(workers):
    with pytest.raises(ZeroDivisionError) as caught:
        list(workers.map(divide, [1, 0]))
    assert "in divide" in caught.value.__notes__[0]


def test_a_full_disk_is_told_as_one(workers):
    with pytest.raises(OSError, match="No space left") as caught:
        list(workers.map(fill_disk, [0]))
    assert is_full_disk(caught.value)


def test_a_worker_that_is_killed_is_one_line_with_the_remedy(workers):
    with pytest.raises(
        InfrastructureError, match=r"was killed \(out of memory\?\).*lower runtime.num_workers"
    ) as caught:
        list(workers.map(die, [0]))
    assert "\n" not in str(caught.value)


def test_workers_are_forked_with_the_named_imports_done(tmp_path):
    """Also those of a program that imports them itself: it would take the seconds again in every worker."""
    program = """
        import sys
        from diffground.runtime.fork_server import start_fork_server

        def imported(item, advance):
            import os
            return os.getppid(), sorted(set(sys.modules) & {"diffground.contexts.bank", "diffground.data.coco"})

        if __name__ == "__main__":
            start_fork_server(["diffground.data.coco", "diffground.no_such_module"])
            from diffground.runtime.workers import Workers
            with Workers(num_workers=2) as workers:
                (parent, names), (other_parent, _) = workers.map(imported, [0, 1])
                print(parent == other_parent, names)
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    ran = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "True ['diffground.data.coco']", ran.stderr


def test_a_gpu_has_one_worker():
    committed = load_params(Path(__file__).parents[3] / "params.yaml").runtime
    runtime = replace(committed, device="auto", num_threads=4, num_workers=2)
    assert make_workers(runtime, torch.device("cpu"))._num_workers == 2
    assert make_workers(runtime, torch.device("cuda"))._num_workers == 1


SCRIPT = """
    import sys
    import time
    from pathlib import Path
    from diffground.data.shards import Sample
    from diffground.entry_point import run_entry_point
    from diffground.data.shard_map import map_shards, shard_jobs
    from diffground.runtime.workers import Workers

    def slow(items):
        for i in items:
            time.sleep(0.1 if i < 4 else 60)  # the first shard is done, the others never are
            yield Sample(key=f"s-{i:06d}", members={"value.txt": str(i * i).encode() * 100})

    def main():
        with Workers(num_workers=2) as workers:
            map_shards(shard_jobs(list(range(10)), shard_size=4), out_dir=Path("out"), fingerprint={"checkpoint": "a"},
                       process=slow, description="test", num_samples=10, workers=workers)

    if __name__ == "__main__":
        sys.exit(run_entry_point(main, resume_with="again"))
"""


@pytest.fixture
def started(tmp_path):
    """SCRIPT, in a process group of its own, with one shard done and two being written."""
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    env = {**os.environ, "PYTHONPATH": str(Path(diffground.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=env,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )

    def is_in_the_middle():
        assert process.poll() is None, process.stderr.read()
        return (tmp_path / "out/000000.tar").exists() and len(list((tmp_path / "out").glob("*.partial"))) == 2

    wait_until(is_in_the_middle)
    yield process
    process.kill()
    process.communicate()


def group(process):
    """The living processes that `process` started, in its process group."""
    members = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.getpgid(int(entry.name)) == process.pid:
                members.append(int(entry.name))
        except ProcessLookupError:
            continue
    return [pid for pid in members if pid != process.pid and is_alive(pid)]


def test_killed_it_leaves_no_process_and_goes_on_to_the_same_bytes(started, tmp_path):
    out = tmp_path / "out"
    assert len(group(started)) >= 2
    os.kill(started.pid, signal.SIGKILL)
    wait_until(lambda: not group(started), at_most_s=20)
    assert not (out / "000001.tar").exists()
    first = (out / "000000.tar").stat()
    assert run(out) == 2
    untouched = (out / "000000.tar").stat()
    assert (untouched.st_mtime_ns, untouched.st_ino) == (first.st_mtime_ns, first.st_ino)
    run(tmp_path / "uninterrupted")
    assert digest(out) == digest(tmp_path / "uninterrupted")


def test_ctrl_c_ends_all_without_a_traceback_and_without_half_a_shard(started, tmp_path):
    os.killpg(started.pid, signal.SIGINT)
    _, errors = started.communicate(timeout=DEADLINE_S)
    assert started.returncode == 130
    assert "`again` resumes from here" in errors
    assert "Traceback" not in errors
    wait_until(lambda: not group(started))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["000000.tar", "fingerprint.json"]


def test_a_killed_worker_leaves_the_finished_shards(started, tmp_path):
    partial = next((tmp_path / "out").glob("*.partial"))
    os.kill(int(partial.suffixes[-2].removeprefix(".")), signal.SIGKILL)
    _, errors = started.communicate(timeout=DEADLINE_S)
    assert started.returncode == TEMPORARY_FAILURE
    assert errors.splitlines()[-1].startswith("error: a worker process was killed (out of memory?)")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["000000.tar", "fingerprint.json"]
