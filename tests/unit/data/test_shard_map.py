import hashlib
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import diffground
from diffground.data.shard_map import ShardJob, map_shards, shard_jobs
from diffground.data.shards import Sample, read_shard
from diffground.errors import UserError
from diffground.runtime.fingerprint import checkpoint_fingerprint
from diffground.runtime.workers import Workers

ITEMS = list(range(10))


def samples(items):
    for i in items:
        yield Sample(key=f"s-{i:06d}", members={"value.txt": str(i * i).encode() * 100})


class Counted:
    """samples(), and a record of the items it was asked for."""

    def __init__(self):
        self.items = []

    def __call__(self, items):
        self.items += items
        return samples(items)


def run(out_dir, process=samples, *, items=ITEMS, fingerprint=None):
    return map_shards(
        shard_jobs(items, shard_size=4),
        out_dir=out_dir,
        fingerprint=fingerprint or {"checkpoint": "a"},
        process=process,
        description="test",
        num_samples=len(items),
    )


def digest(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_jobs_are_consecutive_items():
    jobs = shard_jobs("abcde", shard_size=2)
    assert [(job.name, list(job.payload)) for job in jobs] == [
        ("000000", ["a", "b"]),
        ("000001", ["c", "d"]),
        ("000002", ["e"]),
    ]
    assert (len(jobs[1].payload), jobs[1].payload[-1], jobs[1].payload[1:]) == (2, "d", "d")
    assert pickle.loads(pickle.dumps(jobs[1])) == ShardJob("000001", ["c", "d"])


def test_every_item_is_in_its_shard(tmp_path):
    assert run(tmp_path / "out") == 3
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "000000.tar",
        "000001.tar",
        "000002.tar",
        "fingerprint.json",
    ]
    assert list(read_shard(tmp_path / "out/000002.tar")) == list(samples([8, 9]))


def test_a_second_run_computes_nothing(tmp_path):
    run(tmp_path)
    before = digest(tmp_path)
    process = Counted()
    assert run(tmp_path, process) == 0
    assert process.items == []
    assert digest(tmp_path) == before


def test_only_missing_and_incomplete_shards_are_computed(tmp_path):
    run(tmp_path)
    before = digest(tmp_path)
    (tmp_path / "000001.tar").unlink()
    (tmp_path / "000002.tar").write_bytes((tmp_path / "000002.tar").read_bytes()[:700])
    process = Counted()
    assert run(tmp_path, process) == 2
    assert process.items == [4, 5, 6, 7, 8, 9]
    assert digest(tmp_path) == before


def test_another_fingerprint_drops_every_shard(tmp_path):
    run(tmp_path)
    process = Counted()
    assert run(tmp_path, process, fingerprint={"checkpoint": "b"}) == 3
    assert process.items == ITEMS


def test_shards_without_a_readable_fingerprint_are_dropped(tmp_path):
    for content in (None, "{"):
        run(tmp_path)
        (tmp_path / "fingerprint.json").unlink()
        if content:
            (tmp_path / "fingerprint.json").write_text(content)
        assert run(tmp_path) == 3


def test_what_no_job_names_is_dropped(tmp_path):
    run(tmp_path)
    before = digest(tmp_path)
    (tmp_path / "000009.tar").write_bytes(b"x")
    (tmp_path / "000001.partial").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_bytes(b"x")
    assert run(tmp_path) == 0
    assert digest(tmp_path) == before


def test_fewer_jobs_drop_the_shards_beyond_them(tmp_path):
    run(tmp_path)
    assert run(tmp_path, items=ITEMS[:4]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000000.tar", "fingerprint.json"]


SCRIPT = """
    import time
    from pathlib import Path
    from diffground.data.shards import Sample
    from diffground.data.shard_map import map_shards, shard_jobs

    def slow(items):
        for i in items:
            time.sleep(0.1)
            yield Sample(key=f"s-{i:06d}", members={"value.txt": str(i * i).encode() * 100})

    map_shards(shard_jobs(list(range(10)), shard_size=4), out_dir=Path("out"), fingerprint={"checkpoint": "a"},
               process=slow, description="test", num_samples=10)
"""


def test_killed_in_the_middle_of_a_shard_it_goes_on_and_gives_the_same_bytes(tmp_path):
    run(tmp_path / "uninterrupted")
    out = tmp_path / "out"
    env = {**os.environ, "PYTHONPATH": str(Path(diffground.__file__).parents[1])}
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT)]
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    begun = f"000001.tar.{process.pid}.partial"
    while not (out / begun).exists():  # the first shard is done, the second has been begun
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert sorted(p.name for p in out.iterdir()) == ["000000.tar", begun, "fingerprint.json"]
    first = (out / "000000.tar").stat()

    resumed = Counted()
    assert run(out, resumed) == 2
    assert resumed.items == [4, 5, 6, 7, 8, 9]
    untouched = (out / "000000.tar").stat()
    assert (untouched.st_mtime_ns, untouched.st_ino) == (first.st_mtime_ns, first.st_ino)
    assert digest(out) == digest(tmp_path / "uninterrupted")


def test_progress_of_a_log_says_how_many_and_how_fast(tmp_path, capsys):
    run(tmp_path)
    assert "test: 10/10, " in capsys.readouterr().err


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet/model.safetensors").write_bytes(b"weights")
    (tmp_path / "README.md").write_text("card")
    return tmp_path


def test_a_checkpoint_is_known_by_names_and_contents(checkpoint):
    before = checkpoint_fingerprint(checkpoint)
    assert checkpoint_fingerprint(str(checkpoint)) == before
    (checkpoint / "unet/model.safetensors").write_bytes(b"Weights")
    changed = checkpoint_fingerprint(checkpoint)
    (checkpoint / "unet/model.safetensors").rename(checkpoint / "unet/renamed.safetensors")
    assert len({before, changed, checkpoint_fingerprint(checkpoint)}) == 3


def test_a_checkpoint_is_the_same_in_another_place_and_with_another_card(checkpoint, tmp_path):
    before = checkpoint_fingerprint(checkpoint)
    (checkpoint / "README.md").write_text("another card")
    (checkpoint / ".gitattributes").write_text("")
    assert checkpoint_fingerprint(checkpoint) == before
    moved = checkpoint.parent / "moved"
    checkpoint.rename(moved)
    assert checkpoint_fingerprint(moved) == before


def test_a_hub_id_stands_for_itself():
    assert checkpoint_fingerprint("stable-diffusion-v1-5/stable-diffusion-v1-5") == (
        "stable-diffusion-v1-5/stable-diffusion-v1-5"
    )


class Elsewhere(Workers):
    """Workers on a machine with a disk of its own."""

    def map(self, work, items, *, advance=None):
        return iter([None for _ in items])


def test_shards_on_another_machine_s_disk_are_missed(tmp_path):
    with pytest.raises(UserError, match=r"out/000000\.tar was written on another machine; put .* on a filesystem"):
        map_shards(
            shard_jobs(ITEMS, shard_size=4),
            out_dir=tmp_path / "out",
            fingerprint={},
            process=samples,
            description="test",
            num_samples=10,
            workers=Elsewhere(),
        )
