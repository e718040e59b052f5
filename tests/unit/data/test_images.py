"""Images as users have them, against pixels worked out by hand."""

import numpy as np
import pytest
from PIL import Image

from diffground.data.images import read_image
from diffground.errors import UserError

RED = (200, 40, 40)


@pytest.fixture
def pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    pixels[2:6, 3:8] = RED
    return pixels


def test_turned_images_become_upright(tmp_path, pixels):
    turns = {2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 6: np.rot90(pixels, -1), 8: np.rot90(pixels)}
    for orientation, expected in turns.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
        assert np.array_equal(read_image(tmp_path / "turned.png"), expected)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".webp", ".bmp", ".tif"])
def test_formats_without_loss_give_their_pixels(tmp_path, pixels, suffix):
    Image.fromarray(pixels).save(tmp_path / f"picture{suffix}", lossless=True)
    assert np.array_equal(read_image(tmp_path / f"picture{suffix}"), pixels)


def test_transparent_parts_are_shown_on_white(tmp_path, pixels):
    alpha = np.full((9, 12, 1), 255, dtype=np.uint8)
    alpha[0], alpha[1] = 0, 51  # 51 is a fifth
    Image.fromarray(np.concatenate([pixels, alpha], axis=2)).save(tmp_path / "alpha.png")
    found = read_image(tmp_path / "alpha.png")
    assert (found[0] == 255).all()
    assert np.abs(found[1] - (255 * 0.8 + pixels[1] * 0.2)).max() <= 1
    assert np.array_equal(found[2:], pixels[2:])


def test_a_transparent_colour_of_a_palette_is_white(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 1]], dtype=np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "palette.png", transparency=0)
    assert read_image(tmp_path / "palette.png").tolist() == [[[255] * 3, [40, 50, 60], [40, 50, 60]]]


def test_grey_is_repeated_and_cmyk_converted(tmp_path, pixels):
    Image.fromarray(pixels[..., 0]).save(tmp_path / "GREY.PNG")
    assert np.array_equal(read_image(tmp_path / "GREY.PNG"), np.repeat(pixels[..., :1], 3, axis=2))
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.tif")
    assert read_image(tmp_path / "cmyk.tif").tolist() == [[[255, 0, 0]] * 8] * 8


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_are_scaled_and_not_cut_off(tmp_path, suffix):
    values = np.array([[0, 128, 129, 257, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep{suffix}")
    # 65535 / 255 = 257
    assert read_image(tmp_path / f"deep{suffix}")[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


def test_values_without_a_known_range_are_an_error(tmp_path):
    Image.fromarray(np.array([[0, 70000]], dtype=np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif: its pixels have values of 0\.\.70000, must be 0\.\.65535"):
        read_image(tmp_path / "a.tif")
    Image.fromarray(np.array([[0.5]], dtype=np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(UserError, match=r"b\.tif: has floating-point pixels"):
        read_image(tmp_path / "b.tif")


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_of_an_animation_the_first_frame_is_read(tmp_path, suffix):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    red = read_image(tmp_path / f"a{suffix}").reshape(-1, 3).mean(0)
    assert red[0] > 240 and red[2] < 15


def test_one_pixel_is_an_image(tmp_path):
    Image.new("RGB", (1, 1), RED).save(tmp_path / "one pixel.png")
    assert read_image(tmp_path / "one pixel.png").tolist() == [[list(RED)]]


def test_an_image_beyond_pils_limit_is_one_line(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    with pytest.raises(
        UserError, match=r"huge\.png: too large \(.*400000000 pixels.*limit of 178956970.*scale"
    ) as caught:
        read_image(tmp_path / "huge.png")
    assert "\n" not in str(caught.value)


def test_what_is_no_image_is_one_line_that_names_the_file(tmp_path, pixels):
    Image.fromarray(pixels).resize((200, 200)).save(tmp_path / "whole.jpg")
    Image.fromarray(pixels).resize((200, 200)).save(tmp_path / "whole.png")
    Image.fromarray(pixels).resize((200, 200)).save(tmp_path / "whole.webp")
    bad = []
    for suffix in (".jpg", ".png", ".webp"):
        content = (tmp_path / f"whole{suffix}").read_bytes()
        for part in (4, 40, len(content) // 2):
            bad.append(tmp_path / f"cut{part}{suffix}")
            bad[-1].write_bytes(content[:part])
    for name, content in (("text.png", b"no picture"), ("empty.jpg", b"")):
        bad.append(tmp_path / name)
        bad[-1].write_bytes(content)
    assert len(bad) == 11
    for path in bad:
        with pytest.raises(UserError, match=path.name.replace(".", r"\.")) as caught:
            read_image(path)
        assert "not an image that can be read" in str(caught.value) and "\n" not in str(caught.value)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=r"folder\.png: no such image"):
        read_image(tmp_path / "folder.png")
