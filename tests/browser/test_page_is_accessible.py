"""axe on every page, light and dark, and no sideways scrolling."""

import shutil
from pathlib import Path

import pytest
import warm
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from site_at_work import DEMO, Site, failure, quick_run

from trainer.contract.home import Home

PAGES = {
    "start": "/",
    "dataset": f"/dataset?images={DEMO}",
    "settings": "/settings",
    "live": "/live",
    "runs": "/runs",
    "help": "/help",
}
CONTENT = {
    "start": "Just try it",
    "dataset": "8 images",
    "settings": "Min-SNR gamma",
    "live": "Completed",
    "runs": "Completed",
    "help": "Getting started",
}
GRAVE = ("serious", "critical")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a finished run, which is trained once."""
    run = quick_run(Home(tmp_path_factory.mktemp("finished")), "lesbar", dataset={"views": 2})
    assert warm.start(run).wait() == 0, failure(run)
    return run.path


@pytest.fixture
def with_a_run(site: Site, finished: Path) -> None:
    """The server with one finished run, so that no page is empty."""
    shutil.copytree(finished, site.home.runs / finished.name)


def visit(page: Page, name: str) -> None:
    """Open one of the pages and wait until its content is there."""
    page.goto(PAGES[name])
    expect(page.get_by_role("heading", level=1).first).to_be_visible()
    expect(page.get_by_text(CONTENT[name]).filter(visible=True).first).to_be_visible()


def barriers(page: Page) -> dict[str, list[str]]:
    """Rules that axe finds broken gravely, with the elements that break them."""
    found = Axe().run(page).response["violations"]
    return {one["id"]: [node["html"][:200] for node in one["nodes"]] for one in found if one["impact"] in GRAVE}


@pytest.mark.usefixtures("with_a_run")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_serious_barrier(window, scheme):
    page, found = window(color_scheme=scheme).new_page(), {}
    for name in PAGES:
        visit(page, name)
        found[name] = barriers(page)
    assert found == {name: {} for name in PAGES}


@pytest.mark.usefixtures("with_a_run")
@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_is_wider_than_the_window(window, width):
    page, widths = window(viewport={"width": width, "height": 720}).new_page(), {}
    for name in PAGES:
        visit(page, name)
        widths[name] = page.evaluate("document.documentElement.scrollWidth")
    assert {name: wide for name, wide in widths.items() if wide > width} == {}


def test_letters_are_the_same_in_light_and_dark(window):
    fonts = set()
    for scheme in ("light", "dark"):
        page = window(color_scheme=scheme).new_page()
        page.goto("/help")
        expect(page.get_by_role("heading", name="Atelier")).to_be_visible()
        fonts.add(page.evaluate("getComputedStyle(document.querySelector('h1')).fontFamily"))
    assert len(fonts) == 1, fonts
