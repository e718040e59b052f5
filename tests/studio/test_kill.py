"""A Studio that is killed while somebody reviews."""

from __future__ import annotations

import pytest

from diffground.data.review import read_review
from tests.studio.studio_clone import NUM_SYNTHETIC, Server, make_clone

expect = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=30_000)


def test_a_kill_in_the_middle_of_a_review_loses_no_verdict_that_was_shown(tmp_path, open_page):
    clone = make_clone(tmp_path)
    running = Server(clone)
    page = open_page(running.url)
    page.get_by_role("tab", name="Review", exact=True).click()
    progress = page.locator("#review-progress")
    expect(progress).to_contain_text("0 of 30 reviewed", timeout=60_000)
    for num in range(1, 6):
        page.keyboard.press("a" if num % 2 else "r")
        expect(progress).to_contain_text(f"{num} of {NUM_SYNTHETIC} reviewed")
    for _ in range(5):
        page.keyboard.press("a")
    running.kill()
    file = clone / "review/synthetic/mini.csv"
    kept = read_review(file).entries
    assert 5 <= len(kept) <= 10
    assert "".join(entry.verdict[0] for entry in kept.values()).startswith("arara")

    again = Server(clone)
    page = open_page(again.url)
    page.get_by_role("tab", name="Review", exact=True).click()
    progress = page.locator("#review-progress")
    expect(progress).to_contain_text(f"{len(kept)} of {NUM_SYNTHETIC} reviewed", timeout=60_000)
    page.keyboard.press("a")
    expect(progress).to_contain_text(f"{len(kept) + 1} of {NUM_SYNTHETIC} reviewed")
    again.stop()
    assert sorted(path.name for path in file.parent.iterdir()) == ["mini.csv"]
