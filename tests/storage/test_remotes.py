"""README, Remotes: pushed to a folder or to S3, a fresh clone pulls it and `dvc repro` has nothing to do."""

import hashlib
import os
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

import diffground

pytestmark = pytest.mark.timeout(900)
PIPELINE = """
    stages:
      generate:
        cmd: python generate.py
        deps: [generate.py]
        params: [num_samples]
        outs:
          - data/shards:
              persist: true
      count:
        cmd: python count.py
        deps: [count.py, data/shards]
        metrics:
          - count.json:
              cache: false
"""
GENERATE = """
    from pathlib import Path
    import yaml
    from diffground.data.shards import Sample
    from diffground.runtime.shard_map import map_shards, shard_jobs

    def squares(items):
        for i in items:
            yield Sample(key=f"s-{i:06d}", members={"value.txt": str(i * i).encode() * 100})

    num = yaml.safe_load(Path("params.yaml").read_text())["num_samples"]
    map_shards(shard_jobs(range(num), shard_size=4), out_dir=Path("data/shards"), fingerprint={}, process=squares,
               description="generate", num_samples=num)
"""
COUNT = """
    import json
    from pathlib import Path
    from diffground.data.shards import read_samples

    Path("count.json").write_text(json.dumps({"num_samples": len(list(read_samples(Path("data/shards"))))}))
"""
PLACEHOLDER = "nothing-secret"


class Clone:
    """A repository with a pipeline of shards."""

    def __init__(self, root):
        self.root = root
        binaries = Path(sys.executable).parent
        self.env = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "AWS_"))},
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(Path(diffground.__file__).parents[1]),
            "DVC_SITE_CACHE_DIR": str(root.parent / "site-cache"),
            "DVC_NO_ANALYTICS": "1",
            "AWS_ACCESS_KEY_ID": PLACEHOLDER,
            "AWS_SECRET_ACCESS_KEY": PLACEHOLDER,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "no_proxy": "127.0.0.1",
        }

    def run(self, *command):
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout[-4000:]}"
        return done.stdout

    def shards(self):
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (self.root / "data/shards").iterdir()
        }


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A repository whose pipeline has run and is committed."""
    clone = Clone(tmp_path_factory.mktemp("storage") / "origin")
    clone.root.mkdir()
    for name, text in (
        ("dvc.yaml", PIPELINE), ("generate.py", GENERATE), ("count.py", COUNT), ("params.yaml", "num_samples: 10\n"),
        (".gitignore", "/data/\n__pycache__/\n"), (".dvcignore", "__pycache__/\n"),
    ):  # fmt: skip
        (clone.root / name).write_text(textwrap.dedent(text).lstrip())
    clone.run("git", "init", "--quiet")
    clone.run("git", "config", "user.email", "test@example.org")
    clone.run("git", "config", "user.name", "test")
    clone.run("dvc", "init", "--quiet")
    clone.run("dvc", "repro", "--quiet")
    clone.run("git", "add", ".")
    clone.run("git", "commit", "--quiet", "-m", "pipeline")
    assert len(clone.shards()) == 4
    return clone


@pytest.fixture(scope="module")
def s3():
    """An S3 server on this machine with an empty bucket; its address."""
    if find_spec("moto") is None or find_spec("dvc_s3") is None:
        pytest.skip("needs moto[server] and the extra s3")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=PLACEHOLDER,
        aws_secret_access_key=PLACEHOLDER,
    )  # fmt: skip
    client.create_bucket(Bucket="diffground")
    yield client, endpoint
    server.stop()


def push_and_start_anew(origin, folder, url, **options):
    """`url` becomes the default remote of `origin`, which pushes to it; the clone that has pulled from there."""
    origin.run("dvc", "remote", "add", "--force", "--default", "storage", url)
    for key, value in options.items():
        origin.run("dvc", "remote", "modify", "storage", key, value)
    origin.run("git", "commit", "--quiet", "-am", f"remote {url}")
    origin.run("dvc", "push", "--quiet")
    clone = Clone(folder / "clone")
    origin.run("git", "clone", "--quiet", str(origin.root), str(clone.root))
    assert not (clone.root / "data").exists()
    clone.run("dvc", "pull", "--quiet")
    return clone


def assert_is_up_to_date(clone, origin):
    assert clone.shards() == origin.shards()
    before = {path: path.stat().st_mtime_ns for path in (clone.root / "data/shards").iterdir()}
    assert "Data and pipelines are up to date." in clone.run("dvc", "repro")
    assert {path: path.stat().st_mtime_ns for path in (clone.root / "data/shards").iterdir()} == before


def test_a_folder(origin, tmp_path):
    clone = push_and_start_anew(origin, tmp_path, str(tmp_path / "remote"))
    assert len([path for path in (tmp_path / "remote").rglob("*") if path.is_file()]) >= 5
    assert_is_up_to_date(clone, origin)


def test_s3(origin, s3, tmp_path):
    client, endpoint = s3
    clone = push_and_start_anew(origin, tmp_path, "s3://diffground/dvc", endpointurl=endpoint)
    stored = client.list_objects_v2(Bucket="diffground")["Contents"]
    assert len(stored) >= 5
    assert all(entry["Key"].startswith("dvc/files/md5/") for entry in stored)
    assert_is_up_to_date(clone, origin)
    # and what was pulled is what a longer run goes on from
    (clone.root / "params.yaml").write_text("num_samples: 14\n")
    kept = clone.shards()
    clone.run("dvc", "repro", "--quiet")
    assert clone.shards().items() >= {name: value for name, value in kept.items() if name != "000002.tar"}.items()
    assert len(clone.shards()) == 5
