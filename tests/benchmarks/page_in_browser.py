"""What the page costs in a browser: `python tests/benchmarks/page_in_browser.py [--checkout DIR]`.

CPU seconds, user and system, of all processes of the browser from an action until they are quiet, and of the server:
loading the page, choosing another preset, typing a letter. Median of five, after one that does not count. Quiet is a
second that costs hardly more than one of the page left alone, which is measured first and taken off: Gradio's loader
draws on for as long as a page is open, also on an empty one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import psutil
import suite
from playwright.sync_api import Page, sync_playwright
from site_at_work import Site

ROUNDS = 5
QUIET_SECONDS, QUIET_CPU = 1.0, 0.03  # quiet is a second that costs at most so many seconds more than one left alone
IDLE_SECONDS, WINDOWS = 2.5, 6
LONGEST_SECONDS = 40.0
PRESETS = ("sdxl-character", "sd15-style")


def cpu(processes: list[psutil.Process]) -> float:
    """User and system seconds of these processes; what one had used counts when it has ended."""
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def browsers() -> list[psutil.Process]:
    """The browser's processes."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "chrom" in process.name():
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def idle() -> float:
    """CPU seconds of the browser in a second in which nothing happens, once the last action is over."""
    seen = []
    for _ in range(WINDOWS):
        before = cpu(browsers())
        time.sleep(IDLE_SECONDS)
        seen.append((cpu(browsers()) - before) / IDLE_SECONDS)
    return min(seen)


def cost(act: Callable[[], object], server: psutil.Process, alone: float) -> tuple[float, float]:
    """CPU seconds of browser and server from the action until the browser has been quiet for a second.

    Args:
        act: The action.
        server: The server's process.
        alone: What the page costs the browser in a second anyhow, which is taken off.
    """
    before, served, began = cpu(browsers()), cpu([server]), time.monotonic()
    act()
    end = time.monotonic() + LONGEST_SECONDS
    marks = [(time.monotonic(), cpu(browsers()))]
    while time.monotonic() < end:
        time.sleep(0.1)
        now, used = time.monotonic(), cpu(browsers())
        marks.append((now, used))
        earlier = [(at, value) for at, value in marks if at <= now - QUIET_SECONDS]
        if earlier and used - earlier[-1][1] <= QUIET_CPU + alone * (now - earlier[-1][0]):
            at, value = earlier[-1]
            return value - before - alone * (at - began), cpu([server]) - served
    return used - before - alone * (now - began), cpu([server]) - served


def measured(name: str, act: Callable[[int], object], server: psutil.Process) -> None:
    """Print what an action costs, which is given the number of its round."""
    act(0)
    alone = idle()
    costs = [cost(lambda number=number: act(number), server, alone) for number in range(1, ROUNDS + 1)]
    sys.stdout.write(f"{name}: the page left alone {alone:.3f} s CPU a second\n")
    for whose, seconds in zip(("browser", "server"), zip(*costs, strict=True), strict=True):
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
        sys.stdout.write(f"{name}: {whose} {statistics.median(seconds):.3f} s CPU (median of {ROUNDS}, {spread})\n")
    sys.stdout.flush()


@contextmanager
def opened(site: Site) -> Iterator[Page]:
    """A page in a browser of its own."""
    with sync_playwright() as playwright:
        flags = ["--disable-gpu", "--no-sandbox", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=suite.find_chromium(), args=flags)
        yield browser.new_page(viewport={"width": 1280, "height": 800}, base_url=site.url, locale="en-US")
        browser.close()


def choose(page: Page, preset: str) -> None:
    """Choose a preset, as a person does; older versions have a list of Gradio's."""
    if page.locator("select#preset").count():
        page.locator("select#preset").select_option(preset)
        return
    page.locator("#preset input").click()
    page.get_by_role("option", name=preset).click()


def at(site: Site, path: str) -> str:
    """A page's address; the start page's where an older version has no such page."""
    return path if site.answers(path) == 200 else "/"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkout", type=Path, default=ROOT, help="Another version, to compare with.")
    flags = parser.parse_args()
    Site.checkout = flags.checkout.resolve()
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder))
        site.start()
        server = psutil.Process(site.process.pid)
        sys.stdout.write(f"load of the machine: {os.getloadavg()[0]:.2f}\n")
        try:
            with opened(site) as page:
                for path in dict.fromkeys(at(site, path) for path in ("/", "/settings")):
                    measured(f"load of {path}", lambda _, path=path: page.goto(path), server)
                measured("preset change", lambda number: choose(page, PRESETS[number % 2]), server)
                rank = page.get_by_role("spinbutton", name="Rank").first
                rank.click()
                measured("keystroke", lambda number: rank.press(str(number % 10)), server)
        finally:
            site.process.terminate()
            site.process.wait()


if __name__ == "__main__":
    main()
