"""Pictures of every page for the documents; made only with ATELIER_SCREENSHOTS=1."""

import os

import pytest
from playwright.sync_api import expect
from site_at_work import CHECKOUT, DEMO, Site, until
from the_page import fill_example, press, shows

FOLDER = CHECKOUT / "assets" / "screenshots"
SIZE = {"width": 1280, "height": 800}
OTHERS = (
    ("dataset", f"/dataset?images={DEMO}", "8 pictures"),
    ("runs", "/runs", "Completed"),
    ("help", "/help", "Getting started"),
)
pytestmark = pytest.mark.skipif(
    os.environ.get("ATELIER_SCREENSHOTS") != "1", reason="made by hand, with ATELIER_SCREENSHOTS=1"
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_has_its_picture(window, site: Site, scheme):
    page = window(color_scheme=scheme, viewport=SIZE).new_page()
    FOLDER.mkdir(exist_ok=True)

    def take(name: str) -> None:
        page.screenshot(path=FOLDER / f"{name}-{scheme}.png")

    fill_example(page, "emoji", views=20, whole=True)
    page.evaluate("scrollTo(0, 0)")
    take("train")
    press(page, "Train")
    run = site.run("emoji")
    until(lambda: len(run.view().steps) > 30, "a curve to show")
    shows(page, "emoji", "Training")
    take("live")
    shows(page, "emoji", "Completed")
    take("result")
    for name, address, content in OTHERS:
        page.goto(address)
        expect(page.get_by_text(content).filter(visible=True).first).to_be_visible()
        take(name)
    assert {f"{name}-{scheme}.png" for name in ("train", "live", "result", "dataset", "runs", "help")} <= {
        path.name for path in FOLDER.iterdir()
    }
