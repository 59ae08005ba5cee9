"""Chromium, the page's server, and a guard over what the page says on the console and whom it asks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import suite
import warm
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from site_at_work import PATIENCE_SECONDS, Site
from the_page import closed

from trainer.runs import process

HERE = Path(__file__).parent
LIMIT_MS = PATIENCE_SECONDS * 1000
INSIDE = ("data", "blob")  # addresses that lead to no server
LEFT = (
    "BodyStreamBuffer was aborted",
    "Connection errored out",
    "AbortError: signal is aborted",
)  # Gradio's client, when a page is left mid-request


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = suite.find_chromium()
    if program is None:
        pytest.skip(suite.NO_BROWSER)
    flags = ["--disable-gpu", "--disable-background-networking"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        flags.append("--no-sandbox")  # Chromium's own does not work for root
    expect.set_options(timeout=LIMIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        yield browser
        browser.close()


@pytest.fixture(autouse=True)
def _trainers_start_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that a test starts beside the page; the page's own start as a user's do."""
    monkeypatch.setattr(process, "start", warm.start)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser") / "mein Heim für Läufe"


@pytest.fixture(scope="session")
def server(home: Path) -> Iterator[Site]:
    site = Site(home)
    site.start()
    yield site
    site.clear()
    site.process.terminate()
    site.process.wait()


@pytest.fixture
def site(server: Site) -> Iterator[Site]:
    """The server, without any run."""
    yield server
    server.clear()
    complaints = server.complaints()
    server.output.write_bytes(b"")
    assert not complaints


class Guard:
    """A browser's window: its context, and all that went wrong in it."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context, self.origin = context, urlsplit(url)
        self.wrong: list[str] = []
        context.on("console", lambda said: said.type == "error" and self._hear(said.text))
        context.on("weberror", lambda error: self.wrong.append(f"error: {error.error}"))
        context.on("request", lambda request: self._check(request.url))

    def _hear(self, text: str) -> None:
        if not any(known in text for known in LEFT):
            self.wrong.append(f"console: {text}")

    def _check(self, url: str) -> None:
        asked = urlsplit(url)
        if asked.scheme not in INSIDE and asked.netloc != self.origin.netloc:
            self.wrong.append(f"request: {url}")


@pytest.fixture
def window(browser: Browser, site: Site) -> Iterator[Callable[..., BrowserContext]]:
    """Open browser windows; at the end, none may have shown an error or asked another server."""
    guards: list[Guard] = []

    def open_window(**options: str) -> BrowserContext:
        settings = {"locale": "en-US", "viewport": {"width": 1280, "height": 800}, "base_url": site.url, **options}
        context = browser.new_context(**settings)
        context.set_default_timeout(LIMIT_MS)
        guards.append(Guard(context, site.url))
        return context

    yield open_window
    wrong = [wrong for guard in guards for wrong in guard.wrong]  # before the windows are left amid their questions
    for guard in guards:
        if guard.context in browser.contexts:
            closed(guard.context)
    assert wrong == []


@pytest.fixture
def page(window: Callable[..., BrowserContext]) -> Page:
    return window().new_page()
