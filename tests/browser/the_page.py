"""The page's parts by the names a user reads."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect


def field(page: Page, role: str, name: str) -> Locator:
    """An input by the first words of its label."""
    return page.get_by_role(role, name=re.compile(f"^{name}"))


def fill_example(page: Page, name: str, views: int = 4, whole: bool = False) -> None:
    """Fill in the built-in example, smaller and under another name; with one quick preview if not `whole`."""
    page.goto("/")
    page.get_by_role("button", name="Try it with the built-in example").click()
    expect(field(page, "textbox", "Image folder")).to_have_value(re.compile("style"))
    expect(field(page, "textbox", "Name")).not_to_have_value("")
    field(page, "textbox", "Name").fill(name)
    field(page, "spinbutton", "Views per image").fill(str(views))
    field(page, "spinbutton", "Views per image").blur()
    if not whole:
        quicken(page)
        field(page, "textbox", "Preview prompts").fill("bell")
        field(page, "textbox", "Preview prompts").blur()


def quicken(page: Page) -> None:
    """Draw previews in three steps."""
    page.get_by_text("Everything: all other settings").click()
    field(page, "spinbutton", "Preview steps").fill("3")
    field(page, "spinbutton", "Preview steps").blur()


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
