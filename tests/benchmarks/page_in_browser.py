"""What the page costs in a browser: `python tests/benchmarks/page_in_browser.py [--checkout DIR]`.

CPU seconds, user and system, of all processes of the browser from an action until they are quiet, and of the server:
loading the page, choosing another preset, typing a letter. Median of five, after one that does not count.
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
QUIET_SECONDS, QUIET_CPU = 1.0, 0.04  # quiet is a second that costs at most so many seconds
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


def cost(act: Callable[[], object], server: psutil.Process) -> tuple[float, float]:
    """CPU seconds of browser and server from the action until the browser has been quiet for a second."""
    before, served = cpu(browsers()), cpu([server])
    act()
    end = time.monotonic() + LONGEST_SECONDS
    marks = [(time.monotonic(), cpu(browsers()))]
    while time.monotonic() < end:
        time.sleep(0.1)
        now, used = time.monotonic(), cpu(browsers())
        marks.append((now, used))
        earlier = [value for at, value in marks if at <= now - QUIET_SECONDS]
        if earlier and used - earlier[-1] <= QUIET_CPU:
            return earlier[-1] - before, cpu([server]) - served
    return used - before, cpu([server]) - served


def measured(name: str, act: Callable[[int], object], server: psutil.Process) -> None:
    """Print what an action costs, which is given the number of its round."""
    costs = [cost(lambda number=number: act(number), server) for number in range(ROUNDS + 1)][1:]
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
