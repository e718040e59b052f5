import numpy as np
import pytest
from PIL import Image

from diffground.report.figures import grouped_bars, loss_curves
from diffground.report.gallery import Picture, Row, draw_gallery, mask_overlay, overlay


def size(path):
    with Image.open(path) as image:
        return image.size


def test_overlay_colours_objects_only_and_keeps_its_input():
    image = np.full((4, 4, 3), 100, dtype=np.uint8)
    label = np.zeros((4, 4), dtype=np.uint8)
    label[2:, 2:] = 1  # VOC's colour of label 1 is (128, 0, 0)
    blended = overlay(image, label)
    assert (image == 100).all()
    assert blended.shape == (128, 128, 3), "small images grow, so that outlines are thin"
    assert blended[0, 0].tolist() == [100, 100, 100]
    assert blended[127, 127].tolist() == [115, 45, 45]  # 0.45 * 100 + 0.55 * (128, 0, 0)
    assert blended[64, 100].tolist() == [255, 255, 255], "the outline is white"
    assert blended[65, 100].tolist() == [115, 45, 45], "and one pixel wide"


def test_overlay_keeps_the_size_of_an_image_that_is_large_enough():
    image = np.zeros((128, 200, 3), dtype=np.uint8)
    assert overlay(image, np.zeros((128, 200), dtype=np.uint8)).shape == image.shape


def test_overlay_leaves_ignored_pixels_as_they_are():
    image = np.full((3, 3, 3), 7, dtype=np.uint8)
    assert (overlay(image, np.full((3, 3), 255, dtype=np.uint8)) == 7).all()


def test_the_last_of_overlapping_masks_shows():
    image = np.zeros((3, 3, 3), dtype=np.uint8)
    everywhere = np.ones((3, 3), dtype=bool)
    # VOC's colour of label 2 is (0, 128, 0)
    assert mask_overlay(image, [everywhere, everywhere])[2, 2].tolist() == [0, 70, 0]
    assert (mask_overlay(image, []) == 0).all()


@pytest.mark.parametrize("num_rows", [0, 1, 3])
def test_gallery_grows_with_its_rows(num_rows, tmp_path):
    picture = Picture(np.zeros((8, 8, 3), dtype=np.uint8), "a caption that is far too long for so small a picture")
    draw_gallery(tmp_path / "a.png", [Row("heading", [picture, picture])] * num_rows, picture_px=64)
    assert size(tmp_path / "a.png") == (8 + (72 * 2 if num_rows else 0), 8 + num_rows * (22 + 64 + 16 + 8))


def test_equal_numbers_give_equal_bytes(tmp_path):
    scores = {"grounding": {"one seen": 80.0, "two seen": None}, "DAAM": {"one seen": 40.0, "two seen": 30.0}}
    curves = {"grounding": [(0, 1.0), (50, 0.5)], "segmenter": []}
    for name in ("a", "b"):
        grouped_bars(tmp_path / f"bars_{name}.png", scores, title="Protocol I", unit="mIoU, %")
        loss_curves(tmp_path / f"loss_{name}.png", curves, title="Training")
    assert (tmp_path / "bars_a.png").read_bytes() == (tmp_path / "bars_b.png").read_bytes()
    assert (tmp_path / "loss_a.png").read_bytes() == (tmp_path / "loss_b.png").read_bytes()
    assert size(tmp_path / "bars_a.png")[0] > 300


def test_nothing_measured_still_gives_a_picture(tmp_path):
    grouped_bars(tmp_path / "bars.png", {}, title="empty", unit="%")
    loss_curves(tmp_path / "loss.png", {}, title="empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bars.png", "loss.png"]
