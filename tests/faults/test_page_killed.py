"""The page's server killed while somebody types into the page: what was typed half a second before is kept."""

import argparse
import os
import random
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest
import suite
from playwright.sync_api import Page, expect, sync_playwright
from site_at_work import PATIENCE_SECONDS, Site, until
from tally import note

from app import ui
from trainer.projects.project import Project

FIELD, NAME = "dataset.trigger_word", "ömchen"
LOST_SECONDS = 0.5  # what was typed that long before a kill may be lost


def serve(home: Path, port: int) -> None:
    """The page's server, in a process that has imported it already."""
    with (home / "server.txt").open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    flags = argparse.Namespace(home=home, port=port, listen="", allow_host=[], password_file=None, no_browser=True)
    ui.serve(flags)


class ForkedSite(Site):
    """A server that starts in a second."""

    def start(self) -> None:
        """Fork the server and wait until it answers."""
        context = get_context("forkserver")
        context.set_forkserver_preload(["app.ui"])
        self.home.root.mkdir(parents=True, exist_ok=True)
        self.process = context.Process(target=serve, args=(self.home.root, self.port))
        self.process.start()
        until(lambda: not self.process.is_alive() or self.answers("/"), "the page answers")
        assert self.process.is_alive(), self.output.read_text(encoding="utf-8")

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.join()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ForkedSite]:
    site = ForkedSite(tmp_path / "mein Heim für Läufe")
    site.start()
    yield site
    site.kill()


@pytest.fixture
def page(site: ForkedSite) -> Iterator[Page]:
    """Start, in a browser of its own."""
    program = suite.find_chromium()
    if program is None:
        pytest.skip(suite.NO_BROWSER)
    expect.set_options(timeout=PATIENCE_SECONDS * 1000)
    with sync_playwright() as playwright:
        flags = ["--disable-gpu", "--disable-background-networking", "--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        page = browser.new_page(base_url=site.url, locale="en-US")
        page.goto("/")
        yield page
        browser.close()


def typed_until_killed(page: Page, site: Site, begin: str, seconds: float) -> list[tuple[float, str]]:
    """Type after what stands in the field for so long, then kill the server; returns all that stood there, and when."""
    stood = [(time.monotonic(), begin)]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        key = "abcdefghij"[len(stood) % 10]
        page.keyboard.type(key)
        stood.append((time.monotonic(), stood[-1][1] + key))
        time.sleep(0.02)
    site.kill()
    return stood


def wrong_with(project: Project, stood: list[tuple[float, str]], killed: float) -> list[str]:
    """What is wrong with what was kept by then."""
    found = project.read()
    value = found.values.get(FIELD)
    allowed = [text for since, text in stood if since >= killed - LOST_SECONDS]
    allowed += [text for since, text in stood if since < killed - LOST_SECONDS][-1:]
    wrong = ["the file cannot be read"] if found.unreadable else []
    return wrong if value in allowed else [*wrong, f"{value!r} is kept, and {allowed[0]!r} was typed in time"]


@pytest.mark.browser
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.faults  # only: Playwright cannot be begun twice in one process, and other tests have begun it
@pytest.mark.parametrize("kills", [200])
def test_no_kill_of_the_page_loses_what_was_typed(page: Page, site: ForkedSite, chance: random.Random, kills: int):
    page.get_by_label("Name", exact=True).fill(NAME)
    page.get_by_label("Name", exact=True).blur()
    until(lambda: [project.name for project in Project.all(site.home)] == [NAME], "it is a project")
    project, field, wrong = Project.named(site.home, NAME), page.get_by_label("Trigger word", exact=True), []
    for number in range(kills):
        begin = str(number)
        field.fill(begin)
        until(lambda begin=begin: project.read().values.get(FIELD) == begin, "the server that is back keeps it")
        stood = typed_until_killed(page, site, begin, chance.uniform(0.05, 1.2))
        wrong += note("page killed while somebody types", wrong_with(project, stood, time.monotonic()))
        site.start()
    assert wrong == []
    until(lambda: project.read().values[FIELD] == stood[-1][1], "what could not be kept is sent again")
    assert project.read().values["output.name"] == NAME
