"""The page and the CSV that a reviewer gets."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from diffground.data.labelled import LabelledSample, image_sample, oracle_sample
from diffground.evaluation.methods import foreground_method
from diffground.evaluation.protocol1 import run_protocol1
from diffground.evaluation.review import Review, read_review
from diffground.report.review_page import write_review_page

SIZE = 32
GROUPS = ("one_seen", "two_seen")


def sample(i, covered, *, categories=("dog",), group="one_seen", prompt="a <dog>"):
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[:, :covered] = True
    key, image = f"test-00000{i}", np.full((SIZE, SIZE, 3), 40 * i, dtype=np.uint8)
    return LabelledSample(
        image_sample(id=key, prompt=prompt, categories=categories, group=group, settings={}, image=image),
        oracle_sample(key, categories=categories, masks={"dog": mask} if covered else {}),
    )


SAMPLES = [sample(0, 16), sample(1, SIZE), sample(2, 8, categories=("dog", "cat"), group="two_seen")]


@pytest.fixture
def page(tmp_path):
    return tmp_path / "new" / "review.html"


def verdicts(page):
    return {e.id: (e.verdict, e.note) for e in read_review(page.with_suffix(".csv")).entries.values()}


def test_the_csv_has_the_checks_verdicts(page, tmp_path):
    counts = write_review_page(page, SAMPLES, Review(tmp_path / "none.csv"))
    assert counts == {"accepted": 1, "rejected": 2}
    assert verdicts(page) == {
        "test-000000": ("accepted", ""),
        "test-000001": ("rejected", "check: bad_area"),
        "test-000002": ("rejected", "check: not_found"),
    }


def test_the_csv_serves_as_the_review_and_judges_the_same(page, tmp_path):
    write_review_page(page, SAMPLES, Review(tmp_path / "none.csv"))
    reviewed, automatic = (
        run_protocol1(SAMPLES, {"f": foreground_method}, groups=GROUPS, batch_size=4, review=review)
        for review in (read_review(page.with_suffix(".csv")), None)
    )
    assert reviewed.num_images == automatic.num_images == {"one_seen": 1, "two_seen": 0}
    assert reviewed.num_rejected["reviewed"] == 2


def test_the_page_shows_every_sample_with_its_masks(page, tmp_path):
    write_review_page(page, SAMPLES, Review(tmp_path / "none.csv"))
    text = page.read_text()
    assert text.count("<figure ") == 3 and text.count('<figure class="accepted"') == 1
    assert "a &lt;dog&gt;" in text and "<script" not in text and "http" not in text
    assert "one seen (2)" in text and "two seen (1)" in text and "cat</b> (not found)" in text
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    assert len(pictures) == 3
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures[0]))).convert("RGB")).astype(int)
    height, width = shown.shape[:2]
    assert width == 2 * height
    assert shown[:, : height - 4].max() < 12  # the image is black
    assert shown[:, height + 8 : height + height // 2 - 8, 0].min() > 50  # its left half is in the first colour
    assert shown[:, height + height // 2 + 8 : -4].max() < 12


def test_earlier_verdicts_stay_where_the_picture_is_the_same(page, tmp_path):
    write_review_page(page, SAMPLES, Review(tmp_path / "none.csv"))
    edited = tmp_path / "edited.csv"
    text = page.with_suffix(".csv").read_text()
    edited.write_text(
        text.replace("rejected,check: bad_area", "accepted,fine").replace(",accepted,\n", ",rejected,ugly\n")
    )
    changed = sample(0, 4)
    write_review_page(page, [changed, *SAMPLES[1:]], read_review(edited))
    assert verdicts(page)["test-000001"] == ("accepted", "fine")
    assert verdicts(page)["test-000000"] == (
        "accepted",
        "(reviewed before as rejected, but was reviewed with another image or other masks)",
    )
    assert [path.name for path in sorted(page.parent.iterdir())] == ["review.csv", "review.html"]
