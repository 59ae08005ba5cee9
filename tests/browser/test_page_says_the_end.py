"""The browser says that a training has ended, where it may."""

import re

from playwright.sync_api import Page, expect
from site_at_work import Site, reached, until
from the_page import fill_example, press, room, shows

HEARD = """
window.heard = [];
window.Notification = class {
  static permission = "default";
  static requestPermission = async () => { window.Notification.permission = "granted"; };
  constructor(text) { window.heard.push(text); }
};
"""  # what a headless browser shows nobody sees


def begin(page: Page, site: Site, name: str):
    page.add_init_script(HEARD)
    fill_example(page, name)
    press(page, "Train")
    page.wait_for_url(re.compile("/live"))
    run = site.run(name)
    until(lambda: reached(run, 1), "it trains")
    return run


def test_who_wants_to_know_is_told_once(page: Page, site: Site):
    begin(page, site, "ende")
    press(page, "Tell me when it ends")
    expect(page.get_by_role("button", name="Tell me when it ends")).to_be_hidden()
    shows(page, "ende", "Completed")
    assert page.evaluate("window.heard") == ["Completed · ende"]


def test_nobody_else_is_told_and_a_finished_run_is_no_news(page: Page, site: Site):
    begin(page, site, "still")
    shows(page, "still", "Completed")
    expect(page.get_by_role("button", name="Tell me when it ends")).to_be_hidden()
    assert page.evaluate("window.heard") == []
    page.evaluate("Notification.requestPermission()")
    room(page, "Live")
    shows(page, "still", "Completed")
    assert page.evaluate("window.heard") == []
