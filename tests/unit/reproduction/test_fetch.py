"""The plan of every artifact, and real archives, a real hub client and real torchvision against servers of this
machine."""

import functools
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import yaml
from torchvision.datasets import VOCSegmentation
from torchvision.datasets.voc import DATASET_YEAR_DICT

import diffground
from diffground.cli.main import main
from diffground.data.coco import convert_coco
from diffground.errors import UserError
from diffground.reproduction.download import RemoteFile
from diffground.reproduction.fetch import ARTIFACTS, DETECTOR, STABLE_DIFFUSION, ArchiveSource, FileSource, plan_fetch

ROOT = Path(__file__).parents[3]
CLOSED = "http://127.0.0.1:9"  # the port of a service that no one runs


@pytest.fixture
def serve():
    """Call with a handler class; returns the server's address."""
    running = []

    def start(handler):
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


class QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def checksum(path):
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def call(folder, *arguments, **environment):
    env = {**os.environ, "PYTHONPATH": str(Path(diffground.__file__).parents[1]), **environment}
    return subprocess.run(
        [sys.executable, "-m", "diffground", "fetch", *arguments],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_plan_of_coco_is_its_three_archives(tmp_path):
    plan = plan_fetch("coco2017", root=tmp_path)
    assert [source.file.url.rpartition("/")[2] for source in plan.sources] == [
        "annotations_trainval2017.zip",
        "val2017.zip",
        "train2017.zip",
    ]
    assert all(len(source.file.checksum) == len("sha256:") + 64 for source in plan.sources)
    assert sum(source.file.size_mb for source in plan.sources) == pytest.approx(20_405.35, abs=0.01)
    targets = {member for source in plan.sources for member in source.members}
    assert targets == {
        "annotations/instances_train2017.json",
        "annotations/instances_val2017.json",
        "train2017",
        "val2017",
    }
    assert all(source.root == tmp_path / "coco2017" for source in plan.sources)


def test_validation_alone_leaves_the_training_images_out(tmp_path):
    sources = plan_fetch("coco2017_val", root=tmp_path).sources
    assert [source.members for source in sources] == [("annotations/instances_val2017.json",), ("val2017",)]


def test_what_was_placed_by_hand_is_not_fetched(tmp_path):
    (tmp_path / "coco2017/val2017").mkdir(parents=True)
    (tmp_path / "coco2017/annotations").mkdir()
    (tmp_path / "coco2017/annotations/instances_val2017.json").write_text("{}")
    assert [line.split(":")[0] for line in plan_fetch("coco2017_val", root=tmp_path).describe()] == ["there", "there"]
    plan_fetch("coco2017_val", root=tmp_path).run()
    assert [line.split(":")[0] for line in plan_fetch("coco2017", root=tmp_path).describe()] == [
        "fetch",
        "there",
        "fetch",
    ]


def test_the_plans_fit_the_paper_profiles():
    voc, detector, generator = (
        yaml.safe_load((ROOT / f"conf/{name}.yaml").read_text())
        for name in ("data/voc2012", "detector/maskrcnn_coco", "generator/stable_diffusion")
    )
    assert plan_fetch("voc2012").next_step == f"set data.source={voc['source']} data.root={voc['root']}"
    assert detector["checkpoint"] == DETECTOR
    assert generator["checkpoint"] == STABLE_DIFFUSION


def test_the_detector_goes_where_torchvision_looks_for_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    for plan in (plan_fetch("detector"), plan_fetch("detector", root=tmp_path / "cache")):
        (source,) = plan.sources
        assert source.path.parent == Path(torch.hub.get_dir()) / "checkpoints"
        assert source.path.name == source.file.url.rpartition("/")[2]
        assert source.file.checksum == "sha256:73cbd019"
        assert source.file.size_mb == pytest.approx(185.8, abs=0.1)


def test_an_unknown_artifact_is_an_error():
    with pytest.raises(UserError, match=r"fetch: must be one of voc2012, coco2017, .*, got 'voc'"):
        plan_fetch("voc")


def test_weights_that_were_fetched_load_as_torchvision_loads_them(serve, tmp_path, monkeypatch):
    (tmp_path / "web").mkdir()
    torch.save({"bias": torch.arange(3.0)}, tmp_path / "web/weights.pth")
    digits = hashlib.sha256((tmp_path / "web/weights.pth").read_bytes()).hexdigest()[:8]
    name = f"net-{digits}.pth"
    (tmp_path / "web/weights.pth").rename(tmp_path / "web" / name)
    url = f"{serve(functools.partial(QuietFiles, directory=tmp_path / 'web'))}/{name}"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    FileSource(RemoteFile(url, f"sha256:{digits}", size_mb=0), path).fetch()
    loaded = torch.hub.load_state_dict_from_url(f"{CLOSED}/{name}", check_hash=True, weights_only=True)
    assert loaded["bias"].tolist() == [0, 1, 2]


def test_voc_is_unpacked_where_torchvision_reads_it(serve, tmp_path, monkeypatch):
    web, devkit = tmp_path / "web", Path("VOCdevkit/VOC2012")
    web.mkdir()
    with tarfile.open(web / "voc.tar", "w") as tar:
        for name in ("JPEGImages/x.jpg", "SegmentationClass/x.png", "ImageSets/Segmentation/val.txt"):
            info = tarfile.TarInfo(str(devkit / name))
            info.size = 2
            tar.addfile(info, io.BytesIO(b"x\n"))
    address = serve(functools.partial(QuietFiles, directory=web))
    md5 = hashlib.md5((web / "voc.tar").read_bytes()).hexdigest()
    monkeypatch.setitem(
        DATASET_YEAR_DICT, "2012", {**DATASET_YEAR_DICT["2012"], "url": f"{address}/voc.tar", "md5": md5}
    )
    plan = plan_fetch("voc2012", root=tmp_path / "data")
    plan.run()
    assert VOCSegmentation(tmp_path / "data", image_set="val").images == [
        str(tmp_path / "data" / devkit / "JPEGImages/x.jpg")
    ]
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["VOCdevkit", "voc.tar"]
    assert plan.describe()[0].startswith("there: ")


def test_an_unpacking_that_was_killed_starts_again(serve, tmp_path):
    web, root = tmp_path / "web", tmp_path / "coco2017"
    web.mkdir()
    with zipfile.ZipFile(web / "part.zip", "w") as archive:
        archive.writestr("annotations/instances_val2017.json", "new")
        archive.writestr("annotations/captions_val2017.json", "not wanted")
        archive.writestr("val2017/1.jpg", "one")
        archive.writestr("val2017/2.jpg", "two")
    (root / "part.zip.unpacked/val2017").mkdir(parents=True)
    (root / "part.zip.unpacked/val2017/9.jpg").write_text("of another day")
    (root / "annotations").mkdir()
    (root / "annotations/instances_val2017.json").write_text("placed by hand")
    address = serve(functools.partial(QuietFiles, directory=web))
    file = RemoteFile(f"{address}/part.zip", checksum(web / "part.zip"), size_mb=0)
    source = ArchiveSource(file, root, ("val2017", "annotations/instances_val2017.json"))
    assert not source.is_complete()
    source.fetch()
    assert source.is_complete()
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert files == {"part.zip", "val2017/1.jpg", "val2017/2.jpg", "annotations/instances_val2017.json"}
    assert (root / "annotations/instances_val2017.json").read_text() == "placed by hand"


# fmt: off
NEEDED = [
    "README.md", "model_index.json", "feature_extractor/preprocessor_config.json", "scheduler/scheduler_config.json",
    "text_encoder/config.json", "text_encoder/model.safetensors", "tokenizer/merges.txt", "tokenizer/vocab.json",
    "tokenizer/special_tokens_map.json", "tokenizer/tokenizer_config.json", "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors", "vae/config.json", "vae/diffusion_pytorch_model.safetensors",
]
# the rest of the repository of Stable Diffusion 1.5
NOT_NEEDED = [
    ".gitattributes", "v1-5-pruned.ckpt", "v1-5-pruned.safetensors", "v1-5-pruned-emaonly.ckpt", "v1-inference.yaml",
    "v1-5-pruned-emaonly.safetensors", "safety_checker/config.json", "safety_checker/model.safetensors",
    "safety_checker/pytorch_model.bin", "text_encoder/model.fp16.safetensors", "text_encoder/pytorch_model.bin",
    "unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors", "vae/diffusion_pytorch_model.bin",
    "vae/diffusion_pytorch_model.fp16.safetensors",
]
# fmt: on
REPOSITORY = [*NEEDED, *NOT_NEEDED]


class Hub(BaseHTTPRequestHandler):
    """What the hub's client asks for: the revision, the tree, and each file; a file's content is its name."""

    commit = "0123456789" * 4

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path, _, _ = self.path.partition("?")
        headers = {}
        if path.startswith(f"/api/models/{STABLE_DIFFUSION}/tree/"):
            body = json.dumps(
                [
                    {"type": "file", "path": name, "size": len(name), "oid": hashlib.sha1(name.encode()).hexdigest()}
                    for name in REPOSITORY
                ]
            ).encode()
        elif path.startswith(f"/api/models/{STABLE_DIFFUSION}"):
            body = json.dumps({"id": STABLE_DIFFUSION, "sha": self.commit, "siblings": []}).encode()
        else:
            name = path.removeprefix(f"/{STABLE_DIFFUSION}/resolve/{self.commit}/")
            assert name in REPOSITORY
            body = name.encode()
            headers = {"X-Repo-Commit": self.commit, "ETag": f'"{hashlib.sha1(body).hexdigest()}"'}
        self.send_response(200)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def test_of_stable_diffusion_only_what_is_loaded_is_fetched(serve, tmp_path):
    environment = {"HF_ENDPOINT": serve(Hub), "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
    result = call(tmp_path, "sd15", "--root", "models", **environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("sd15: complete; set generator.checkpoint=models/stable-diffusion-v1-5\n")
    folder = tmp_path / "models/stable-diffusion-v1-5"
    fetched = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and ".cache" not in p.parts}
    assert fetched == set(NEEDED)
    again = call(tmp_path, "sd15", "--root", "models", **{**environment, "HF_ENDPOINT": CLOSED})
    assert (again.returncode, again.stdout.split(":")[0]) == (0, "there")


def test_the_hub_cache_is_used_without_a_folder(serve, tmp_path):
    environment = {"HF_ENDPOINT": serve(Hub), "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
    first = call(tmp_path, "sd15", **environment)
    assert first.returncode == 0, first.stderr
    assert first.stdout.endswith(f"set generator.checkpoint={STABLE_DIFFUSION}\n")
    assert call(tmp_path, "sd15", **{**environment, "HF_ENDPOINT": CLOSED}).stdout.startswith("there: ")


def test_without_the_hub_one_line_says_how_to_place_the_files(tmp_path):
    (tmp_path / "models/stable-diffusion-v1-5").mkdir(parents=True)
    (tmp_path / "models/stable-diffusion-v1-5/model_index.json").write_text("{}")  # the client takes this for all
    result = call(tmp_path, "sd15", "--root", "models", HF_ENDPOINT=CLOSED, HF_HOME=str(tmp_path / "hub"))
    assert result.returncode == 2
    error = result.stderr.splitlines()[-1]
    assert error.startswith(f"error: {STABLE_DIFFUSION}: README.md could not be downloaded from the Hugging Face hub")
    assert error.endswith("by hand and set generator.checkpoint to it")


@pytest.mark.parametrize("name", ARTIFACTS)
def test_a_dry_run_says_what_would_come_and_fetches_nothing(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main(["fetch", name, "--root", "here", "--dry-run"])
    out, err = capsys.readouterr()
    assert (exit_.value.code, err) == (0, "")
    assert out and all(line.startswith("fetch: ") and " -> here/" in line for line in out.splitlines())
    assert list(tmp_path.iterdir()) == []


def test_a_missing_coco_names_the_command_that_fetches_it(tmp_path):
    with pytest.raises(UserError, match="run `diffground fetch coco2017`"):
        convert_coco(tmp_path, tmp_path / "voc", split="val", image_list="val")
