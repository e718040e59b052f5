"""The Studio in a browser, on the models of profile mini."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import diffground
from diffground.data.review import read_review
from diffground.exchange.export import ExportOptions, export_shards
from diffground.exchange.samples import Categories
from diffground.segmentation.sources import ShardSource
from tests.studio.studio_clone import NAMES, NUM_SYNTHETIC, picture_of

expect = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=30_000)
PROMPT = "a photograph of a dog and a cat"
_SLOW_MS = 120_000


def tab(page, name):
    page.get_by_role("tab", name=name, exact=True).click()


def pictures(page, name):
    return page.locator(f"#{name}-pictures img")


def toast(page, text):
    """A message of the page that contains `text`; then it is closed."""
    message = page.locator("[data-testid=toast-body]").filter(has_text=text)
    expect(message).to_be_visible(timeout=20_000)
    message.locator("[data-testid=toast-close]").click()
    expect(message).to_have_count(0)


def drop(page, *files):
    """Put (name, content) pairs into the field of tab Segment."""
    clear = page.locator("#segment-files [aria-label=Clear]")
    if clear.count():
        clear.click()
    payload = [{"name": name, "mimeType": "image/png", "buffer": content} for name, content in files]
    page.set_input_files("#segment-files input[type=file]", payload)


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def set_number(page, selector, value):
    field = page.locator(f"{selector} input[type=number]")
    field.fill(str(value))
    field.press("Tab")


@pytest.fixture
def generated(open_page):
    page = open_page()
    page.click("#generate-start")
    expect(pictures(page, "generate")).to_have_count(1, timeout=_SLOW_MS)
    return page


def test_a_word_is_switched_and_the_threshold_moved_without_another_pass(generated):
    page, image = generated, pictures(generated, "generate")
    expect(image).to_have_attribute("alt", "Seed 0, with the masks of dog, cat")
    both = image.get_attribute("src")
    page.locator("#generate-shown").get_by_label("cat").uncheck()
    expect(image).to_have_attribute("alt", "Seed 0, with the masks of dog")
    assert image.get_attribute("src") != both
    page.locator("#generate-shown").get_by_label("cat").check()
    expect(image).to_have_attribute("src", both)
    set_number(page, "#generate-threshold", 1)
    expect(page.locator("#generate-pictures figcaption")).to_contain_text("dog: not found", timeout=5_000)
    set_number(page, "#generate-threshold", 0.5)
    expect(image).to_have_attribute("src", both)
    set_number(page, "#generate-opacity", 0)
    expect(image).not_to_have_attribute("src", both)


def test_the_zip_has_the_files_that_ground_writes(generated, clone, tmp_path):
    with generated.expect_download() as download:
        generated.click("#generate-zip")
    with zipfile.ZipFile(download.value.path()) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    env = {**os.environ, "PYTHONPATH": str(Path(diffground.__file__).parents[1])}
    command = [sys.executable, "-m", "diffground", "ground", PROMPT, "-c", "dog", "-c", "cat", "-o", tmp_path / "out"]
    subprocess.run(command, cwd=clone, env=env, check=True, capture_output=True)
    written = {f"grounded/{path.relative_to(tmp_path / 'out')}": path for path in (tmp_path / "out").rglob("*.*")}
    assert len(files) == 4
    assert files == {name: path.read_bytes() for name, path in written.items()}


def test_words_are_offered_for_the_prompt_and_errors_are_plain(open_page):
    page = open_page()
    page.fill("#generate-prompt textarea", "a photograph of a unicorn next to a sofa")
    offered = page.locator("#generate-words label")
    expect(offered).to_have_text(["sofa", "unicorn"])
    expect(page.locator("#generate-words").get_by_label("sofa")).to_be_checked()
    expect(page.locator("#generate-words").get_by_label("unicorn")).not_to_be_checked()
    page.fill("#generate-other input, #generate-other textarea", "<b>dog</b>")
    page.click("#generate-start")
    toast(page, "does not contain the words '<b>dog</b>'")
    page.fill("#generate-other input, #generate-other textarea", "")
    page.fill("#generate-number input", "9")
    page.click("#generate-start")
    toast(page, "Images must be a whole number of 1 to 8, got 9")


def test_two_users_at_the_same_time_both_get_their_images(open_page):
    pages = [open_page(), open_page()]
    for seed, page in enumerate(pages, start=5):
        page.fill("#generate-seed input", str(seed))
        page.fill("#generate-number input", "2")
        page.click("#generate-start")
    for seed, page in enumerate(pages, start=5):
        expect(pictures(page, "generate")).to_have_count(2, timeout=_SLOW_MS)
        expect(page.locator("#generate-pictures figcaption").last).to_contain_text(f"Seed {seed + 1}")


def test_pictures_are_segmented_by_words_and_by_the_trained_segmenter(open_page):
    page = open_page()
    tab(page, "Segment")
    drop(page, ("wide.png", png(Image.fromarray(picture_of(0)[0]).resize((160, 96)))))
    page.fill("#segment-words input, #segment-words textarea", "dog, cat")
    page.click("#segment-start")
    expect(pictures(page, "segment")).to_have_attribute("alt", "wide.png, with the masks of dog, cat", timeout=_SLOW_MS)
    page.locator("#segment-method").get_by_label("Categories of the trained segmenter").check()
    expect(page.locator("#segment-threshold input[type=number]")).to_be_disabled()
    by_words = page.locator("#segment-pictures figcaption").inner_text()
    page.click("#segment-start")
    expect(page.locator("#segment-pictures figcaption")).not_to_have_text(by_words, timeout=_SLOW_MS)
    with page.expect_download() as download:
        page.click("#segment-zip")
    with zipfile.ZipFile(download.value.path()) as archive:
        names = archive.namelist()
        record = json.loads(archive.read(next(name for name in names if name.endswith(".json"))))
    assert sorted(name.rpartition("/wide")[2] for name in names) == [".json", ".mask.png", ".overlay.png"]
    assert (record["width"], record["height"], record["settings"]["method"]) == (160, 96, "segmenter")


def test_files_that_are_too_large_or_no_pictures_get_a_message(open_page):
    page = open_page()
    tab(page, "Segment")
    page.fill("#segment-words input, #segment-words textarea", "dog")
    for content, message in (
        (b"hello", "x.png: not a picture that is read here"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "x.png: not a picture that is read here"),
        (png(Image.new("1", (8000, 5200))), "x.png: has more than 40 megapixels"),
    ):
        drop(page, ("x.png", content))
        page.click("#segment-start")
        toast(page, message)
    drop(page, ("big.png", b"\0" * (21 * 2**20)))
    toast(page, "exceed the maximum allowed size of 20")
    page.reload()
    tab(page, "Segment")
    page.click("#segment-start")
    toast(page, "there is no picture")


def rejected(page, num):
    expect(page.locator("#review-progress")).to_contain_text(f"{num} rejected", timeout=_SLOW_MS)


def test_rejected_samples_are_seen_after_a_reload_and_by_others_and_left_out_of_training_and_export(open_page, clone):
    page = open_page()
    tab(page, "Review")
    rejected(page, 0)
    expect(page.locator("#review-info")).to_contain_text("synthesis-000029")  # the lowest quality
    page.keyboard.press("r")
    rejected(page, 1)
    page.click("#review-reject")
    rejected(page, 2)
    page.keyboard.press("r")
    rejected(page, 3)
    page.keyboard.press("u")
    rejected(page, 2)
    expect(page.locator("#review-info")).to_contain_text("synthesis-000027")
    page.reload()
    tab(page, "Review")
    rejected(page, 2)
    expect(page.locator("#review-info")).to_contain_text("synthesis-000027")
    other = open_page()
    tab(other, "Review")
    rejected(other, 2)

    review = read_review(clone / "review/synthetic/mini.csv")
    assert {key: entry.verdict for key, entry in review.entries.items()} == {
        "synthesis-000029": "rejected",
        "synthesis-000028": "rejected",
    }
    shards = clone / "data/synthetic"
    source = ShardSource(shards, review=review, categories=NAMES)
    assert (len(source), source.num_rejected) == (NUM_SYNTHETIC - 2, 2)
    options = ExportOptions(("png",), review=review.path)
    lines = export_shards(shards, clone / "by-hand", categories=Categories(NAMES, NAMES), options=options)
    assert f"2 rejected in --review (of {NUM_SYNTHETIC} samples)" in lines[1]


def choose(page, selector, option):
    page.click(f"{selector} input")
    page.get_by_role("option", name=option, exact=True).click()


def test_the_filters_of_the_review_and_the_test_images(open_page):
    page = open_page()
    tab(page, "Review")
    info = page.locator("#review-info")
    choose(page, "#review-category", "cat")
    expect(info).to_contain_text("sample 1 of 10 of this filter")
    page.keyboard.press("ArrowRight")
    expect(info).to_contain_text("sample 2 of 10 of this filter")
    choose(page, "#review-group", "one_unseen")
    expect(page.locator("#review-picture")).to_contain_text("No sample fits these filters")
    choose(page, "#review-set", "Test images")
    expect(info).to_contain_text("test-000005")  # nothing was found there
    expect(info).to_contain_text("automatic check: not found")
    page.click("#review-next")
    expect(info).to_contain_text("automatic check: passes")


def test_data_are_counted_and_exported_below_the_project_only(open_page, clone):
    page = open_page()
    tab(page, "Data")
    expect(page.locator("#data-summary")).to_contain_text(f"{NUM_SYNTHETIC} samples, mean quality 0.52")
    expect(page.locator("#data-balance tbody tr").first).to_contain_text("dog30")
    tab(page, "Sheet")
    choose(page, "#data-category", "cat")
    expect(page.locator("#data-sheet-pictures img")).to_have_count(10)
    tab(page, "Export")
    page.wait_for_timeout(1000)  # a tab that is shown for the first time sets its fields once more
    page.fill("#export-name input, #export-name textarea", "../../etc/passwd")
    page.click("#export-start")
    toast(page, "the folder's name must be 1 to 64 letters")
    page.fill("#export-name input, #export-name textarea", "set1")
    page.click("#export-start")
    expect(page.locator("#export-report")).to_contain_text("exported/set1: coco;", timeout=_SLOW_MS)
    assert (clone / "exported/set1/README.md").is_file()


def test_results_show_the_tables_and_say_which_servers_answer(open_page, server):
    page = open_page()
    tab(page, "Results")
    expect(page.locator("#results-table")).to_contain_text("grounding module84.3")
    expect(page.locator("#results-links")).to_contain_text("Prefect: no answer at http://127.0.0.1:4200")
    link = page.get_by_role("link", name="reports/index.html").get_attribute("href")
    assert page.request.get(server.url + link.removeprefix("/")).text() == "<title>report</title>"


@pytest.mark.skipif("AXE_CORE" not in os.environ, reason="AXE_CORE must name axe.min.js of npm's package axe-core")
def test_no_tab_has_a_serious_violation_of_accessibility(generated):
    page, found = generated, []
    rules = Path(os.environ["AXE_CORE"]).read_text()
    for name in ("Generate", "Segment", "Review", "Data", "Pairs", "Sheet", "Export", "Results", "Figures", "Metrics"):
        tab(page, name)
        page.wait_for_timeout(1500)
        page.evaluate(rules)
        violations = page.evaluate("async () => (await axe.run(document)).violations")
        found += [(name, v["id"], v["nodes"][0]["html"]) for v in violations if v["impact"] in ("serious", "critical")]
    assert found == []
