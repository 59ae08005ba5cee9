"""axe on every page, light and dark, and no sideways scrolling."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from site_at_work import DEMO, Site, until

PAGES = ["/", f"/dataset?images={DEMO}", "/runs", "/help"]
NAMES = ["train", "dataset", "runs", "help"]


@pytest.fixture(scope="module")
def axe() -> Axe:
    return Axe()


def opened(window, address: str, **options):
    """The page once its content is there."""
    page = window(**options).new_page()
    page.goto(address)
    page.get_by_role("heading", level=1).first.wait_for()
    page.wait_for_load_state("networkidle") if address != "/" else page.locator("#panel").wait_for()
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", PAGES, ids=NAMES)
def test_no_serious_barrier_is_found(window, site: Site, axe: Axe, address, scheme):
    run = site.train("lesbar", dataset={"views": 2})
    until(lambda: run.status() == "completed", "a run to show")
    found = axe.run(opened(window, address, color_scheme=scheme)).response["violations"]
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    assert {one["id"]: [node["html"][:150] for node in one["nodes"]] for one in grave} == {}


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("address", PAGES, ids=NAMES)
def test_nothing_is_wider_than_the_window(window, address, width):
    page = opened(window, address, viewport={"width": width, "height": 720})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
