"""The page's parts by the names a user reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from playwright.sync_api import BrowserContext, Error, Locator, Page, Route, expect

SERVER = re.compile("component_server")


def closed(context: BrowserContext) -> None:
    """Close a window, its pages at rest: Chromium forgets to close one that is about to show another address, and
    Playwright then waits for ever (its issues 41900 and 42366).
    """
    for page in context.pages:
        page.on("dialog", lambda dialog: dialog.accept())  # "leave this page?"
        with suppress(Error):
            page.goto("about:blank")
    context.close()


def field(page: Page, role: str, name: str) -> Locator:
    """An input by the first words of its label."""
    return page.get_by_role(role, name=re.compile(f"^{name}"))


def room(page: Page, name: str) -> None:
    """Go to a room of the project, as a person does."""
    page.locator("#rooms").get_by_role("link", name=name, exact=True).click()
    page.wait_for_url(re.compile({"Start": r"/(\?|$)"}.get(name, f"/{name.lower()}")))


def fill_example(page: Page, name: str, views: int = 4, whole: bool = False) -> None:
    """Make a project of the built-in example, smaller and under another name; with one quick preview if not `whole`."""
    page.goto("/?new=1")
    page.get_by_role("button", name="Try it with the built-in example").click()
    expect(field(page, "textbox", "Image folder")).to_have_value(re.compile("style"))
    expect(field(page, "textbox", "Name")).not_to_have_value("")
    field(page, "textbox", "Name").fill(name)
    room(page, "Settings")
    field(page, "spinbutton", "Views per image").fill(str(views))
    quicken(page)
    if not whole:
        field(page, "textbox", "Preview prompts").fill("bell")
    room(page, "Start")
    expect(field(page, "textbox", "Name")).to_have_value(name)


def quicken(page: Page) -> None:
    """Generate previews in three steps; in the room Settings."""
    field(page, "spinbutton", "Preview steps").fill("3")


def press(page: Page, name: str) -> None:
    """Press a button."""
    page.get_by_role("button", name=name, exact=True).click()


def status(page: Page) -> Locator:
    """The panel's status line."""
    return page.locator("#panel").get_by_role("status")


def shows(page: Page, run: str, state: str) -> None:
    """Wait until the panel shows the run of this name in this state."""
    expect(page.locator("#panel").get_by_role("heading", level=2).first).to_contain_text(run)
    expect(status(page)).to_contain_text(state)


def step(page: Page) -> int:
    """The step that the status line tells; 0 while it tells none."""
    found = re.search(r"step (\d+)", status(page).inner_text())
    return int(found[1]) if found else 0


def asks(route: Route, what: str) -> bool:
    """Whether this request calls that function of the server."""
    return re.search(rf"\b{what}\b", route.request.post_data or "") is not None


@contextmanager
def held(page: Page, what: str) -> Iterator[Callable[[], None]]:
    """Answers of this function are held back until the block, or the callable that it is given, lets them through."""
    waiting: list[Route] = []
    through = False

    def catch(route: Route) -> None:
        if not through and asks(route, what):
            waiting.append(route)
        else:
            route.fallback()

    def let() -> None:
        nonlocal through
        through = True
        while waiting:
            waiting.pop(0).continue_()

    page.route(SERVER, catch)
    yield let
    let()
    page.unroute(SERVER, catch)
