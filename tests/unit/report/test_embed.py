import base64
import io

import numpy as np
from PIL import Image

from diffground.report.embed import MOST_PX, embed_chart, embed_image


def decoded(embedded):
    return Image.open(io.BytesIO(base64.b64decode(embedded.src.partition(";base64,")[2])))


def test_a_picture_keeps_its_colours_and_equal_ones_have_equal_bytes():
    image = np.full((32, 48, 3), (200, 40, 90), dtype=np.uint8)
    embedded = embed_image(image, "a square")
    assert embedded == embed_image(image.copy(), "a square")
    assert (embedded.width, embedded.height, embedded.alt) == (48, 32, "a square")
    difference = np.asarray(decoded(embedded).convert("RGB")).astype(int) - image
    assert np.abs(difference).max() <= 6


def test_a_large_picture_is_reduced_and_keeps_its_shape():
    embedded = embed_image(np.zeros((512, 1024, 3), dtype=np.uint8), "x")
    assert decoded(embedded).size == (embedded.width, embedded.height) == (MOST_PX, MOST_PX // 2)


def test_a_chart_keeps_its_bytes(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (30, 20)).save(path)
    embedded = embed_chart(path, "a chart")
    assert base64.b64decode(embedded.src.removeprefix("data:image/png;base64,")) == path.read_bytes()
    assert (embedded.width, embedded.height) == (30, 20)
