"""Real servers of the shipped models: answers over HTTP are those of the library; what is refused, in one line."""

import base64
import io
import json
import shutil
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.mask import decode

from diffground import GroundedPipeline, load_segmenter
from tests.documented import ROOT, blocks
from tests.serving.conftest import MODELS

NUM_CONCURRENT = 8
REAL = ROOT / "reports/figures/real.png"
PAGE = ROOT / "docs/mlflow.md"


def base64_of(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def request_of(*records, **params):
    return {"inputs": list(records), "params": params}


def mask_of(mask):
    """bool (H, W) of either format."""
    if isinstance(mask, dict):
        return decode(mask).astype(bool)
    return np.array(Image.open(io.BytesIO(base64.b64decode(mask))).convert("1"))


def labels_of(answer, categories):
    labels = np.zeros((answer["height"], answer["width"]), np.uint8)
    for found in answer["categories"]:
        mask = mask_of(found["mask"])
        rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
        box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
        assert (found["area"], found["box"]) == (mask.sum(), box)
        labels[mask] = categories.index(found["name"]) + 1
    return labels


@pytest.fixture(scope="module")
def library():
    return load_segmenter(MODELS / "segmenter")


@pytest.fixture(scope="module")
def photo():
    with Image.open(REAL) as image:
        return image.convert("RGB").crop((0, 0, 200, 140))


def test_concurrent_requests_for_masks_are_all_answered_as_the_library_does(segmenter, library, photo):
    images = [photo.crop((5 * i, 3 * i, 120 + 5 * i, 90 + 3 * i)) for i in range(NUM_CONCURRENT)]
    bodies = [request_of({"image": base64_of(image)}, format=("rle", "png")[i % 2]) for i, image in enumerate(images)]
    with ThreadPoolExecutor(NUM_CONCURRENT) as pool:
        answers = list(pool.map(segmenter.post, bodies))
    assert len(answers) == NUM_CONCURRENT
    for image, (status, answer) in zip(images, answers, strict=True):
        assert status == 200, answer
        [found] = answer["predictions"]
        assert found["categories"]
        assert np.array_equal(labels_of(found, library.categories), library.predict(image)[0].labels)


def test_images_of_several_kinds_in_one_request_are_read_as_the_library_reads_them(segmenter, library, photo, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    transparent = photo.convert("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize(photo.size))
    saved = [
        (photo, "JPEG", {"exif": exif}),
        (transparent, "WEBP", {"lossless": True}),
        (photo.convert("CMYK"), "TIFF", {}),
    ]
    files = []
    for i, (image, kind, options) in enumerate(saved):
        image.save(tmp_path / f"{i}", kind, **options)
        files.append(tmp_path / f"{i}")
    records = [{"image": base64.b64encode(file.read_bytes()).decode()} for file in files]
    status, answer = segmenter.post(request_of(*records, format="png"))
    assert status == 200, answer
    assert (answer["predictions"][0]["width"], answer["predictions"][0]["height"]) == (140, 200)
    for found, expected in zip(answer["predictions"], library.predict(files), strict=True):
        assert np.array_equal(labels_of(found, library.categories), expected.labels)


def test_concurrent_prompts_are_all_answered_as_the_library_does(grounding):
    pipe = GroundedPipeline.from_pretrained(MODELS / "diffusion", grounding=MODELS / "grounding")
    prompt, words = "a photograph of a dog and a cat", ["dog", "cat"]
    bodies = [
        request_of({"prompt": prompt, "categories": words, "seed": seed}, format=("rle", "png")[seed % 2])
        for seed in range(4)
    ]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(grounding.post, bodies))
    assert len(answers) == 4
    for seed, (status, answer) in enumerate(answers):
        assert status == 200, answer
        [found] = answer["predictions"]
        [expected] = pipe(prompt, words=words, seeds=[seed])
        image = np.array(Image.open(io.BytesIO(base64.b64decode(found["image"]))))
        assert np.array_equal(image, np.asarray(expected.image))
        assert [category["name"] for category in found["categories"]] == words
        for category, mask in zip(found["categories"], expected.masks, strict=True):
            assert np.array_equal(mask_of(category["mask"]), mask)
            assert category["area"] == mask.sum()


def png_header(width, height):
    """A PNG file of 45 bytes that claims to have this size."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IEND", b"")).decode()


SMALL = base64_of(Image.new("RGB", (8, 8)))
NOT_AN_IMAGE = base64.b64encode(b"hello").decode()
REFUSED_IMAGES = [
    (request_of({"image": "no base64!"}), "record 0: 'image' is not base64"),
    (request_of({"image": NOT_AN_IMAGE}), "record 0: 'image' is not an image that can be read"),
    (request_of({"image": SMALL}, {"image": base64_of(Image.new("RGB", (99, 99)))[:60]}), "record 1: not an image"),
    (request_of({"image": "A" * (23 * 2**20)}), "record 0: 'image' is too large, at most 16777216 bytes"),
    (request_of({"image": png_header(4097, 4096)}), "record 0: 'image' has too many pixels (4097 x 4096)"),
    (request_of({"image": png_header(99999, 99999)}), "record 0: 'image' has too many pixels"),
    (request_of(*[{"image": SMALL}] * 17), "17 images in one request, at most 16"),
    (request_of({"image": SMALL}, format="gif"), "params.format must be 'rle' or 'png', got 'gif'"),
    (request_of({"file": SMALL}), "record 0 has no 'image'"),
    (request_of({"image": SMALL}, {}), "record 1 has no 'image'"),
    (request_of({"image": SMALL, "crop": 3}), "record 0 has the unknown key 'crop'"),
    (request_of({"image": [[[0, 0, 0]]]}), "record 0: 'image' must be a base64 text, got list"),
    (request_of(), "inputs is empty"),
    ({"inputs": [[[[0, 0, 0]]]]}, "inputs must be a list of objects with 'image'"),
]
DOG = {"prompt": "a photograph of a dog", "categories": ["dog"], "seed": 0}
REFUSED_PROMPTS = [
    (request_of({**DOG, "categories": ["cow"]}), "record 0: the prompt 'a photograph of a dog' does not contain"),
    (request_of({"prompt": "a dog"}), "record 0 has no 'categories'"),
    (request_of({"categories": ["dog"]}), "record 0 has no 'prompt'"),
    (request_of({**DOG, "categories": "dog"}), "record 0: 'categories' must be a list"),
    (request_of({**DOG, "categories": ["dog", "dog"]}), "record 0: 'categories' names a word twice"),
    (request_of({**DOG, "seed": -1}), "record 0: 'seed' must be a whole number of 0 or more, got -1"),
    (request_of({**DOG, "prompt": "dog " * 300}), "record 0: 'prompt' and 'categories' have at most 1000"),
    (request_of(*[DOG] * 9), "9 prompts in one request, at most 8"),
    (request_of(DOG, format="gif"), "params.format must be 'rle' or 'png', got 'gif'"),
]


def check_refusal(server, body, expected):
    status, answer = server.post(body)
    assert status == 400
    assert answer["error_code"] == "INVALID_PARAMETER_VALUE"
    assert answer["message"].startswith(expected)
    assert "\n" not in answer["message"] and len(answer["message"]) <= 500
    assert "Traceback" not in str(answer)


@pytest.mark.parametrize(("body", "expected"), REFUSED_IMAGES, ids=[expected for _, expected in REFUSED_IMAGES])
def test_a_refused_image_is_answered_in_one_line(segmenter, body, expected):
    check_refusal(segmenter, body, expected)


@pytest.mark.parametrize(("body", "expected"), REFUSED_PROMPTS, ids=[expected for _, expected in REFUSED_PROMPTS])
def test_a_refused_prompt_is_answered_in_one_line(grounding, body, expected):
    check_refusal(grounding, body, expected)


def test_refused_requests_leave_no_memory_in_the_server(segmenter):
    body = request_of({"image": base64.b64encode(bytes(4 * 2**20)).decode()})
    for _ in range(15):
        check_refusal(segmenter, body, "record 0: 'image' is not an image")
    before = segmenter.memory()
    for _ in range(40):
        check_refusal(segmenter, body, "record 0: 'image' is not an image")
    # 40 requests of 5.6 MB would be 224 MB; the allocator alone moves it by some 50 MB
    assert segmenter.memory() - before < 120e6


def test_without_a_format_masks_are_run_lengths(segmenter, photo):
    body = {"inputs": [{"image": base64_of(photo)}]}
    status, answer = segmenter.post(body)
    assert status == 200
    assert answer == segmenter.post({**body, "params": {"format": "rle"}})[1]
    assert set(answer["predictions"][0]["categories"][0]["mask"]) == {"size", "counts"}


@pytest.fixture
def photo_file(photo, tmp_path, monkeypatch):
    """photo.png in the current folder."""
    monkeypatch.chdir(tmp_path)
    photo.save("photo.png")


def of_server(text, server):
    """A documented command or script, for the port of `server`."""
    assert "127.0.0.1:5001/" in text
    return text.replace("127.0.0.1:5001/", f"127.0.0.1:{server.port}/")


def test_the_documented_client_saves_the_masks(segmenter, library, photo, photo_file):
    [script] = [
        block for block in blocks(PAGE, "python") if block.startswith("# client.py: python client.py photo.png")
    ]
    Path("client.py").write_text(of_server(script, segmenter))
    done = subprocess.run([sys.executable, "client.py", "photo.png"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [expected] = library.predict(photo)
    found = np.unique(expected.labels[expected.labels > 0])
    assert len(found) > 0 and len(done.stdout.splitlines()) == len(found)
    for label in found:
        name = library.categories[label - 1]
        assert np.array_equal(np.array(Image.open(f"{name}.png")), expected.labels == label)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_documented_curl_command_gets_the_masks(segmenter, library, photo, photo_file):
    lines = [line for block in blocks(PAGE, "bash") for line in block.splitlines()]
    [write] = [line for line in lines if line.startswith("printf ")]
    [post] = [line for line in lines if line.startswith("curl ")]
    commands = f"{write}\n{of_server(post, segmenter)}"
    done = subprocess.run(["bash", "-ec", commands], capture_output=True, text=True, check=True)
    [answer] = json.loads(done.stdout)["predictions"]
    assert np.array_equal(labels_of(answer, library.categories), library.predict(photo)[0].labels)
