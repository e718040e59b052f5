"""Two workers of a Ray cluster on this machine do what processes do, whatever happens to them."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import ANY

import psutil
import pytest
import torch
import yaml
from work_for_workers import KilledAt, count_slowly, describe, divide, fail, slow_first, square, square_samples

import diffground
from diffground.data.shard_map import map_shards, shard_jobs
from diffground.errors import UserError
from diffground.reproduction.composition import compose_params
from diffground.reproduction.config import load_params
from diffground.reproduction.smoke import build_components
from diffground.runtime.backend import make_workers
from diffground.runtime.ray.workers import RayWorkers
from diffground.runtime.workers import Workers
from tests.unit.data.test_shard_map import digest
from tests.unit.reproduction.test_composition import CONF
from tests.unit.runtime.test_same_bytes import Stages, one_thread  # noqa: F401 (a fixture)

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray")
ROOT = Path(__file__).parents[3]
RUNTIME = replace(load_params(ROOT / "params.yaml").runtime, device="auto", num_threads=4, num_workers=2)


@pytest.fixture(scope="module")
def workers():
    with RayWorkers(num_workers=2, num_threads=2) as started:
        yield started
    import ray

    assert not ray.is_initialized()


def run(out_dir, process=square_samples, workers=None):
    return map_shards(
        shard_jobs(list(range(10)), shard_size=4),
        out_dir=out_dir,
        fingerprint={"checkpoint": "a"},
        process=process,
        description="test",
        num_samples=10,
        workers=workers,
    )


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    out = tmp_path_factory.mktemp("local")
    run(out)
    return digest(out)


def test_nothing_to_do_starts_no_ray(tmp_path, monkeypatch):
    run(tmp_path)
    with RayWorkers(num_workers=2, address="127.0.0.1:1") as nowhere:
        assert run(tmp_path, workers=nowhere) == 0


def test_workers_share_out_the_threads_and_compute_repeatably(workers):
    seen = set(workers.map(describe, range(6)))
    assert len({pid for pid, _, _ in seen} - {os.getpid()}) == 2
    assert {entry[1:] for entry in seen} == {(1, True)}
    assert set(workers.map(describe, range(6))) == seen, "they stay for the next map"


def test_the_cluster_listens_on_loopback_only(workers):
    list(workers.map(square, [1]))
    cluster = psutil.Process().children(recursive=True)
    addresses = {
        connection.laddr.ip
        for process in cluster
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses and addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_results_come_in_order_and_every_advance_is_heard(workers):
    advanced = []
    assert list(workers.map(square, range(20), advance=advanced.append)) == [i * i for i in range(20)]
    assert sum(advanced) == 20
    assert list(workers.map(slow_first, range(5))) == list(range(5))
    assert list(workers.map(square, [])) == []


def test_samples_are_heard_of_before_their_item_is_done(workers):
    heard_s, start_s = [], time.monotonic()
    list(workers.map(count_slowly, [6], advance=lambda num: heard_s.append(time.monotonic() - start_s)))
    assert len(heard_s) >= 2
    assert heard_s[0] < heard_s[-1] - 1


def test_stages_write_the_bytes_of_one_process(one_thread, workers, tmp_path):  # noqa: F811
    stages = Stages(tmp_path)
    hashes, metrics = stages.run("local", None)
    assert stages.run("ray", workers) == (hashes, metrics)
    assert len(set(hashes.values())) == 12


def test_the_shard_of_a_killed_worker_is_done_again(workers, expected, tmp_path, capsys, caplog):
    killed = tmp_path / "killed"
    assert run(tmp_path / "out", KilledAt(5, times=2, log=killed), workers) == 3
    assert len(set(killed.read_text().splitlines())) == 2, "two processes were killed in the middle of 000001"
    assert caplog.messages.count("a Ray worker was lost at item 000001, which is repeated") == 2
    assert "test: 10/10, " in capsys.readouterr().err, "samples that were lost are counted once"
    assert digest(tmp_path / "out") == {**expected, "fingerprint.json": ANY}  # which knows the code of KilledAt
    assert len(expected) == 4


def test_a_shard_that_kills_every_worker_ends_the_stage_in_one_line(workers, tmp_path):
    killed = tmp_path / "killed"
    with pytest.raises(UserError, match=r"^3 Ray workers in a row were lost at item 000001 .*memory") as caught:
        run(tmp_path / "out", KilledAt(5, times=99, log=killed), workers)
    assert "\n" not in str(caught.value)
    assert len(killed.read_text().splitlines()) == 3
    assert not list((tmp_path / "out").glob("*.partial"))
    assert not (tmp_path / "out/000001.tar").exists()
    assert run(tmp_path / "out", workers=workers) >= 1, "others take their place"


def test_an_error_for_the_user_arrives_as_it_is(workers):
    start_s = time.monotonic()
    with pytest.raises(UserError, match=r"^generator.num_steps must be at least 1, got 0$"):
        list(workers.map(fail, range(4)))
    assert time.monotonic() - start_s < 100, "the others, at work for two minutes, were ended"


def test_a_bug_brings_its_traceback(workers):
    with pytest.raises(ZeroDivisionError) as caught:
        list(workers.map(divide, [1, 0]))
    assert "in divide" in caught.value.__notes__[0]


def test_a_stage_on_a_cluster_of_another_folder(workers, tmp_path):
    list(workers.map(square, [1]))
    import ray  # not before the workers, who set how it starts

    address = ray.get_runtime_context().gcs_address
    workers._kill_actors()  # so that the stage's find room
    params = yaml.safe_load(compose_params("smoke", conf=CONF, overrides=["tracking.enabled=false"]))
    build_components(tmp_path / "components")
    folders = {}
    for name, backend in (("local", "local"), ("on_ray", "ray")):
        folders[name] = folder = tmp_path / name
        (folder / "models").mkdir(parents=True)
        (folder / "models/smoke").symlink_to(tmp_path / "components")
        (folder / "stages").symlink_to(ROOT / "stages")
        params["runtime"].update(num_workers=2, num_threads=2, backend=backend, ray_address=address)
        (folder / "params.yaml").write_text(yaml.safe_dump(params))
        for stage in ("sample_prompts", "generate") if name == "local" else ("generate",):
            if stage == "generate" and name == "on_ray":
                (folder / "data").mkdir()
                (folder / "data/prompts").symlink_to(tmp_path / "local/data/prompts")
            env = {**os.environ, "PYTHONPATH": str(Path(diffground.__file__).parents[1])}
            subprocess.run([sys.executable, f"stages/{stage}.py"], cwd=folder, env=env, check=True)
    for part in ("train", "test"):
        shards = digest(folders["on_ray"] / "data/generated" / part)
        assert len(shards) >= 2
        assert shards == digest(folders["local"] / "data/generated" / part)


def test_of_this_machine_or_of_a_cluster():
    on_ray = replace(RUNTIME, backend="ray", ray_address="auto")
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert type(make_workers(RUNTIME, cpu)) is Workers
    picked = make_workers(on_ray, cpu)
    assert (type(picked), picked._num_workers, picked._threads_each) == (RayWorkers, 2, 2)
    picked = make_workers(on_ray, gpu)
    assert (type(picked), picked._on_gpus, picked._threads_each) == (RayWorkers, True, 4)
    for named in ("cuda:0", "cuda:1"):
        with pytest.raises(
            UserError, match=rf"runtime\.device must be .* where runtime\.backend is 'ray', got '{named}'"
        ):
            make_workers(on_ray, torch.device(named))


def test_without_ray_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"not installed; run `pip install 'diffground\[ray\]'`"):
        RayWorkers()


@pytest.mark.parametrize("address", ["127.0.0.1:abc", "127.0.0.1:99999"])
def test_a_malformed_address_is_no_failure_of_the_machine(monkeypatch, address):
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # the Ray of the tests above still runs
    with RayWorkers(address=address) as workers, pytest.raises(UserError) as raised:
        list(workers.map(square, [1]))
    assert raised.type is UserError
    assert str(raised.value).startswith(f"runtime.ray_address must be '', 'auto' or 'host:port', got '{address}'")


def test_a_ray_client_is_refused():
    with pytest.raises(UserError, match=r"got 'ray://head:10001'; run the stage on a machine of the cluster$"):
        RayWorkers(address="ray://head:10001")


SCRIPT = """
    import os, sys, time
    from pathlib import Path
    from diffground.data.shards import Sample
    from diffground.entry_point import run_entry_point
    from diffground.runtime.ray.workers import RayWorkers
    from diffground.data.shard_map import map_shards, shard_jobs

    def slow(items):
        for i in items:
            time.sleep(0.1 if i < 4 else 600)  # the first shard is done, the others never are
            yield Sample(key=f"s-{i:06d}", members={"value.txt": str(i * i).encode() * 100})

    def main():
        with RayWorkers(num_workers=2) as workers:
            map_shards(shard_jobs(list(range(10)), shard_size=4), out_dir=Path("out"), fingerprint={"checkpoint": "a"},
                       process=slow, description="test", num_samples=10, workers=workers)

    if __name__ == "__main__":
        sys.exit(run_entry_point(main, resume_with="again"))
"""


def test_ctrl_c_ends_all(tmp_path):
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    process = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(diffground.__file__).parents[1])},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    out, deadline = tmp_path / "out", time.monotonic() + 300
    while not ((out / "000000.tar").exists() and len(list(out.glob("*.partial"))) == 2):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "`again` resumes from here" in errors
    assert "Traceback" not in errors
    assert len(started) >= 4, "Ray's own processes and two workers"
    _, alive = psutil.wait_procs(started, timeout=60)
    assert alive == []
    assert sorted(path.name for path in out.iterdir()) == ["000000.tar", "fingerprint.json"]


def test_an_address_where_no_cluster_is():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    script = f"""
        from diffground.runtime.ray.workers import RayWorkers
        from diffground.entry_point import run_entry_point
        def main():
            with RayWorkers(address="{address}") as workers:
                list(workers.map(len, ["a"]))
        raise SystemExit(run_entry_point(main, resume_with="again"))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 75, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: runtime.ray_address: no Ray cluster answers at '{address}'")
