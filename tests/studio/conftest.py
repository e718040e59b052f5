"""One server for all tests of the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.studio.studio_clone import Server, make_clone

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    return make_clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="session")
def server(clone):
    pytest.importorskip("gradio", reason="the page needs the extra 'studio'")
    running = Server(clone)
    yield running
    assert running.stop() in (0, 130, -2)


@pytest.fixture
def browser():
    """Of one test: Playwright keeps an event loop running in this thread, in which asyncio.run is refused."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.is_file():
        pytest.skip(f"{CHROMIUM} is missing; the page is tested with Debian's package chromium")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def open_page(browser, server):
    """Opens the page as another user: each call has a context of its own. No page asks another server for anything."""
    contexts, asked, said = [], [], []

    def open_page(url=server.url):
        context = browser.new_context(viewport={"width": 1280, "height": 720}, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.goto(url)
        page.wait_for_selector("#generate-start")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [url for url in asked if not url.startswith(("http://127.0.0.1:", "data:", "blob:"))] == []
    assert said == []
