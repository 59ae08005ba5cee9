"""From an error's card to what Help says of it."""

import re

import pytest
from playwright.sync_api import expect


def test_a_card_leads_to_its_row_in_help(page):
    page.goto("/?new=1")
    page.get_by_role("radio", name=re.compile("^Just try it")).check()
    page.get_by_label("Image folder").first.fill("/no/such/folder")
    page.locator("#start").click()
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="More in Help").first.click()  # the plan may say it besides
    row = opened.value.locator("#folder_missing")
    expect(row).to_be_in_viewport()
    expect(row).to_contain_text("does not exist")
    assert row.evaluate("row => row.matches(':target')")  # and is marked


@pytest.mark.parametrize("locale", ["de-DE", "ja-JP"])
def test_in_other_languages_too_the_address_leads_to_the_row(window, locale):
    page = window(locale=locale).new_page()
    page.goto("/help#port_in_use")
    expect(page.locator("#port_in_use")).to_be_in_viewport()
    expect(page.locator("details[open]")).to_have_count(1)
    assert page.locator("#port_in_use").evaluate("row => row.matches(':target')")
    page.evaluate("location.hash = '#run_missing'")
    expect(page.locator("#run_missing")).to_be_in_viewport(ratio=1)
    assert re.search(r"help#run_missing$", page.url)
