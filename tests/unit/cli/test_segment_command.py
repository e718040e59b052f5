"""`diffground segment` with the shipped mini models, on small images of the kinds that users have."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools.mask import decode

from diffground import GroundedPipeline, load_segmenter
from diffground.cli.main import main

ROOT = Path(__file__).parents[3]
SCENE = ROOT / "models/mini/samples.png"
WORDS = ["-c", "dog", "-c", "sofa"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with params.yaml of profile mini, its models, and photos/ with three images and a text."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["runtime"] |= {"device": "cpu", "num_threads": 1}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    (tmp_path / "models").mkdir()
    (tmp_path / "models/mini").symlink_to(ROOT / "models/mini")
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    scene = Image.open(SCENE).convert("RGB")
    scene.crop((0, 0, 128, 128)).save(photos / "a.png")
    scene.crop((0, 0, 120, 90)).save(photos / "more/a.JPG", quality=95)
    turned = Image.fromarray(np.asarray(scene.crop((128, 0, 248, 90))))
    exif = turned.getexif()
    exif[0x0112] = 6  # a quarter turn to the right
    turned.save(photos / "turned.jpg", exif=exif, quality=95)
    (photos / "notes.txt").write_text("no image")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def segment(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, list[str]]:
    """Exit code, what was printed, and the lines of errors."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["segment", *arguments])
    told = capsys.readouterr()
    return ended.value.code, told.out, told.err.splitlines()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_gives_masks_as_the_library_does_upright_and_in_the_images_own_size(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, errors = segment(capsys, "photos", *WORDS, "--threshold", "0.2")
    assert code == 0
    assert errors[0].startswith("passed over, files without the suffix of an image (") and errors[0].endswith("): 1")
    assert out.splitlines()[-1] == "segmented: 3 images done"
    records = {json.loads(p.read_text())["image"]: p for p in Path("segmented").glob("*.json")}
    assert set(records) == {"../photos/a.png", "../photos/more/a.JPG", "../photos/turned.jpg"}
    pipe = GroundedPipeline.from_pretrained("models/mini/diffusion", grounding="models/mini/grounding", device="cpu")
    sizes = set()
    for image, path in records.items():
        record, stem = json.loads(path.read_text()), path.name.removesuffix(".json")
        expected = pipe.segment(Path("segmented") / image, words=["dog", "sofa"], mask_threshold=0.2)
        with Image.open(f"segmented/{stem}.mask.png") as index_mask:
            assert index_mask.mode == "P"
            label = np.array(index_mask)
        for i, (entry, mask) in enumerate(zip(record["words"], expected.masks, strict=True)):
            np.testing.assert_array_equal(label == i + 1, mask)
            np.testing.assert_array_equal(decode(entry["segmentation"]), mask)
            assert (entry["area"], entry["area_frac"]) == (mask.sum(), pytest.approx(mask.mean(), abs=1e-6))
            assert entry["score"] == pytest.approx(expected.probs[i].max(), abs=1e-6)
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1] if mask.any() else [0, 0, 0, 0]
            assert entry["bbox"] == [int(side) for side in box]
        np.testing.assert_array_equal(
            np.array(Image.open(f"segmented/{stem}.overlay.png")), np.asarray(expected.overlay())
        )
        assert (record["width"], record["height"]) == expected.image.size
        sizes.add(expected.image.size)
    assert sizes == {(128, 128), (120, 90), (90, 120)}, "the last one is turned"


def test_what_cannot_be_read_is_listed_at_the_end_and_the_rest_is_done(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("photos/cut.jpg").write_bytes(Path("photos/more/a.JPG").read_bytes()[:300])
    Path("photos/text.png").write_text("hello")
    code, out, errors = segment(capsys, "photos", "none.png", "*.tiff", "--with", "models/mini/segmenter")
    assert code == 1
    assert out.splitlines()[-1] == "segmented: 3 images done"
    listed = errors[errors.index("not segmented: 4") + 1 :]
    assert [line.split(":")[0].strip() for line in listed] == [
        "none.png",
        "*.tiff",
        "photos/cut.jpg",
        "photos/text.png",
    ]
    assert "no such file or folder" in listed[0] and "nothing matches the pattern" in listed[1]
    assert len(list(Path("segmented").glob("*.json"))) == 3


def test_a_second_run_skips_what_is_finished_and_a_changed_setting_or_image_is_done_again(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["photos/*", "--with", "models/mini/segmenter", "-c", "dog", "-o", "out"]
    assert segment(capsys, *asked)[0] == 0
    before = contents(Path("out"))
    assert len(before) == 9
    code, out, _ = segment(capsys, *asked)
    assert (code, out) == (0, "skipped: 3 finished with these settings before; --overwrite repeats them\n")
    Path("out/turned.overlay.png").unlink()
    Image.open("photos/a.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save("photos/a.png")
    _, out, _ = segment(capsys, *asked)
    assert out.startswith("skipped: 1 finished") and out.endswith("out: 2 images done\n")
    after = contents(Path("out"))
    assert {name for name in before if after[name] != before[name]} >= {"a.json", "a.overlay.png"}
    assert after["turned.overlay.png"] == before["turned.overlay.png"]
    _, out, _ = segment(capsys, *asked, "--overwrite")
    assert out.endswith("out: 3 images done\n") and contents(Path("out")) == after
    assert segment(capsys, *asked, "-c", "cat")[1].endswith("out: 3 images done\n")


def test_images_of_the_same_stem_keep_their_results_whatever_the_order(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--with", "models/mini/segmenter"]
    assert segment(capsys, "photos/a.png", *options)[0] == 0
    assert segment(capsys, "photos/more/a.JPG", *options)[0] == 0
    names = {name for name in contents(Path("segmented")) if name.endswith(".json")}
    assert len(names) == 2 and "a.json" in names
    assert json.loads(Path("segmented/a.json").read_text())["image"] == "../photos/a.png"
    _, out, _ = segment(capsys, "photos/more/a.JPG", "photos/a.png", *options)
    assert out == "skipped: 2 finished with these settings before; --overwrite repeats them\n"


def test_a_json_file_of_another_kind_is_not_overwritten(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    Path("out/a.json").write_text('{"mine": 1}')
    assert segment(capsys, "photos/a.png", "--with", "models/mini/segmenter", "-o", "out")[0] == 0
    assert Path("out/a.json").read_text() == '{"mine": 1}'
    assert len(list(Path("out").glob("a-*.json"))) == 1


def test_a_segmenter_finds_its_categories_and_those_chosen_are_numbered_as_asked(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    segmenter = load_segmenter("models/mini/segmenter", device="cpu")
    [expected] = segmenter.predict("photos/a.png")
    options = ["--with", "models/mini/segmenter"]
    assert segment(capsys, "photos/a.png", *options, "-o", "all")[0] == 0
    np.testing.assert_array_equal(np.array(Image.open("all/a.mask.png")), expected.labels)
    assert segment(capsys, "photos/a.png", *options, "-c", "potted plant", "-c", "dog", "-o", "two")[0] == 0
    label = np.array(Image.open("two/a.mask.png"))
    for i, category in enumerate(("pottedplant", "dog")):
        np.testing.assert_array_equal(label == i + 1, expected.labels == segmenter.categories.index(category) + 1)


def test_results_in_the_searched_folder_are_no_images_of_the_next_run(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [".", "--with", "models/mini/segmenter", "-c", "dog"]
    assert segment(capsys, *options)[1].endswith("segmented: 3 images done\n")
    _, out, errors = segment(capsys, *options)
    assert out.startswith("skipped: 3 finished")
    assert "passed over, files in the folder of results, segmented: 9" in errors


def test_one_pixel_and_a_caption_are_enough(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (1, 1), (200, 100, 50)).save("dot.png")
    code, _, _ = segment(capsys, "dot.png", "-c", "dog", "--prompt", "my old dog, asleep")
    assert code == 0
    record = json.loads(Path("segmented/dot.json").read_text())
    assert (record["width"], record["height"], record["settings"]["prompt"]) == (1, 1, "my old dog, asleep")


BAD = [
    (["photos"], "-c/--category WORDS is needed"),
    (["photos", "-c", ""], "-c must not be empty"),
    (["photos", "-c", "dog", "-c", "dog"], "words name 'dog' twice; name it once"),
    (["photos", *(f"-cw{i}" for i in range(255))], "at most 254 words fit into one mask, got 255"),
    (["photos", "-c", "dog", "--threshold", "0"], "--threshold must be above 0 and at most 1, got 0"),
    (
        ["photos", "-c", "dog", "--prompt", "two dogs"],
        "does not contain the words 'dog'; did you mean 'dogs'?",
    ),
    (["photos", "-c", "dog", "--prompt", "very " * 2000 + "dog"], "prompt must fit into 32 tokens, got 2003 or more"),
    (["photos", *(f"-cw{i}" for i in range(20))], "ask for fewer words at a time"),
    (["photos", "-c", "dog", "--grounding", "none"], "none: no grounding module (config.json is missing)"),
    (["photos", "--with", "none"], "--with none: no segmenter (config.json is missing)"),
    (["photos", "--with", "models/mini/segmenter", "-c", "dgo"], "closest: dog. Known: aeroplane"),
    (["photos", "--with", "models/mini/segmenter", "--prompt", "a dog"], "--prompt has no effect with --with"),
    (["photos", "--with", "models/mini/segmenter", "--threshold", "0.5"], "--threshold has no effect with --with"),
    (["none.png", "-c", "dog"], "no image found (none.png: no such file or folder)"),
    (["empty", "-c", "dog"], "no image found (empty: no image there)"),
    (["*.webp", "-c", "dog"], "no image found (*.webp: nothing matches the pattern)"),
    (["", "-c", "dog"], "no image found ('': an empty name"),
    (["photos", "-c", "dog", "-o", "photos"], "photos: lies in the folder of results, photos"),
    (["photos", "-c", "dog", "-o", "params.yaml"], "params.yaml: cannot be written (File exists)"),
    (["photos", "-c", "dog", "-o", "params.yaml/out"], "params.yaml/out: cannot be written (Not a directory)"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_arguments_are_one_line_before_torch_is_imported(place: Path, arguments: list[str], message: str) -> None:
    Path("empty").mkdir()
    code = (
        "import sys; sys.modules.update(torch=None, diffusers=None, transformers=None)\n"
        "from diffground.cli.main import main; main(sys.argv[1:])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", code, "segment", *arguments]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1 and len(done.stderr) < 600
    assert not Path("segmented").exists()


def test_where_no_image_can_be_read_torch_is_not_imported(place: Path) -> None:
    Path("text.png").write_text("hello")
    test = "import sys; sys.modules.update(torch=None)\nfrom diffground.cli.main import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", test, "segment", "text.png", "-c", "dog"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "segmented: 0 images done\n")
    assert "  text.png: not an image that can be read" in done.stderr


def test_a_full_disk_is_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    previous, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, previous[1]))  # a write beyond it fails with EFBIG
    try:
        code, _, errors = segment(capsys, "photos/a.png", "--with", "models/mini/segmenter")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, previous)
        signal.signal(signal.SIGXFSZ, handler)
    assert code == 2
    assert errors[-1].startswith("error: no space left to write") and "diffground segment photos/a.png" in errors[-1]
    assert not list(Path("segmented").glob("*.json"))
