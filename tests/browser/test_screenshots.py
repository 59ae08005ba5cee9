"""Images of every page for the documents; made only with ATELIER_SCREENSHOTS=DIR, the folder that they show.

It is made, and deleted in the end, so nothing may be there yet.
"""

import os
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect
from site_at_work import CHECKOUT, Site, reached, until
from the_page import field, fill_example, press, room, shows

FOLDER = CHECKOUT / "assets" / "screenshots"
SHOWN = os.environ.get("ATELIER_SCREENSHOTS", "")
SIZE = {"width": 1280, "height": 900}
LOADED = """() => [...document.images].every((image) => {
    const { top, width } = image.getBoundingClientRect();
    return !width || top > innerHeight || (image.complete && image.naturalWidth > 0);
})"""
pytestmark = pytest.mark.skipif(not SHOWN, reason="made by hand, with ATELIER_SCREENSHOTS=DIR")


@pytest.fixture(scope="module")
def server():
    """A server whose home and images lie where a reader's might."""
    Path(SHOWN).mkdir(parents=True)  # fails if it is there: somebody else's would be deleted in the end
    shutil.copytree(CHECKOUT / "assets" / "demo" / "style" / "train", Path(SHOWN) / "Pictures" / "emoji")
    site = Site(Path(SHOWN) / "atelier")
    site.start()
    yield site
    site.kill()
    shutil.rmtree(SHOWN)


CHECKED = re.compile(r"Problems \(\d")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_has_its_image(window, site: Site, scheme):
    page = window(color_scheme=scheme, viewport=SIZE).new_page()
    FOLDER.mkdir(exist_ok=True)

    def take(name: str) -> None:
        page.evaluate("scrollTo(0, 0)")
        page.wait_for_function(LOADED)
        page.screenshot(path=FOLDER / f"{name}-{scheme}.png")

    images = Path(SHOWN) / "Pictures" / "emoji"
    fill_example(page, "emoji", views=38, whole=True)
    field(page, "textbox", "Image folder").fill(str(images))
    expect(page.get_by_text("24 images ×")).to_be_visible()
    take("start")
    room(page, "Settings")
    expect(field(page, "spinbutton", "Rank")).to_have_value("16")
    take("settings")
    press(page, "Train")
    run = site.run("emoji")
    until(lambda: reached(run, 70), "a curve and two columns of previews")
    expect(page.get_by_role("columnheader", name="step 57")).to_be_visible()
    take("live")
    shows(page, "emoji", "Completed")
    take("result")
    others = {"dataset": f"/dataset?images={images}", "runs": "/runs", "help": "/help"}
    for name, content in (("dataset", CHECKED), ("runs", "Completed"), ("help", "Getting started")):
        page.goto(others[name])
        expect(page.get_by_text(content).filter(visible=True).first).to_be_visible()
        take(name)
