"""README, Remotes: pushed to a folder or to S3, a fresh clone pulls it and `dvc repro` has nothing to do."""

import hashlib
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

import diffground
from tests.scratch import ScratchRepository

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
    from diffground.data.shard_map import map_shards, shard_jobs

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


def repository_at(root):
    """A repository whose commands know the S3 server of these tests, and share no state of DVC with others."""
    return ScratchRepository(
        root,
        python_path=Path(diffground.__file__).parents[1],
        DVC_SITE_CACHE_DIR=str(root.parent / "site-cache"),
        AWS_ACCESS_KEY_ID=PLACEHOLDER,
        AWS_SECRET_ACCESS_KEY=PLACEHOLDER,
        AWS_DEFAULT_REGION="us-east-1",
        AWS_EC2_METADATA_DISABLED="true",
        no_proxy="127.0.0.1",
    )


def shards(repository):
    """Name -> hash of the content."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (repository.root / "data/shards").iterdir()
    }


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A repository whose pipeline has run and is committed."""
    repository = repository_at(tmp_path_factory.mktemp("storage") / "origin")
    for name, text in (
        ("dvc.yaml", PIPELINE),
        ("generate.py", GENERATE),
        ("count.py", COUNT),
        ("params.yaml", "num_samples: 10\n"),
        (".gitignore", "/data/\n__pycache__/\n"),
        (".dvcignore", "__pycache__/\n"),
    ):
        (repository.root / name).write_text(textwrap.dedent(text).lstrip())
    repository.initialise()
    repository.run("dvc", "init", "--quiet")
    repository.run("dvc", "repro", "--quiet")
    repository.commit("pipeline")
    assert len(shards(repository)) == 4
    return repository


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
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=PLACEHOLDER,
        aws_secret_access_key=PLACEHOLDER,
    )
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
    clone = repository_at(folder / "clone")
    origin.run("git", "clone", "--quiet", str(origin.root), str(clone.root))
    assert not (clone.root / "data").exists()
    clone.run("dvc", "pull", "--quiet")
    return clone


def assert_is_up_to_date(clone, origin):
    assert shards(clone) == shards(origin)
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
    # and what was pulled is what a longer run resumes from
    (clone.root / "params.yaml").write_text("num_samples: 14\n")
    kept = shards(clone)
    clone.run("dvc", "repro", "--quiet")
    assert shards(clone).items() >= {name: value for name, value in kept.items() if name != "000002.tar"}.items()
    assert len(shards(clone)) == 5
