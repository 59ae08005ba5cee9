"""`python launch.py test`: the tests, with a browser for those of the page where one can be had."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
PLAYWRIGHTS_OWN = "from playwright.sync_api import *; p = sync_playwright().start(); print(p.chromium.executable_path)"
NO_BROWSER = "Browser tests skipped: no Chromium found. Install it or Chrome, or set ATELIER_CHROMIUM to its program."


def find_chromium(python: str = sys.executable) -> str | None:
    """Returns the browser of the tests: ATELIER_CHROMIUM, else one on the search path, else Playwright's own."""
    chosen = os.environ.get("ATELIER_CHROMIUM")
    found = next(filter(None, map(shutil.which, [chosen] if chosen else BROWSERS)), None)
    if found or chosen:
        return found
    asked = subprocess.run([python, "-c", PLAYWRIGHTS_OWN], capture_output=True, text=True, check=False)
    return shutil.which(asked.stdout.strip())


def ready_browser(python: str) -> str | None:
    """Returns the browser of the tests, which is installed if there is none and the user has chosen none."""
    found = find_chromium(python)
    if found or os.environ.get("ATELIER_CHROMIUM"):
        return found
    attempts = [[python, "-m", "playwright", "install", "chromium"]]
    if sys.platform != "win32" and os.geteuid() == 0 and shutil.which("apt-get"):
        attempts = [["apt-get", "update", "-q"], ["apt-get", "install", "-qy", "--no-install-recommends", "chromium"]]
    sys.stdout.write("No Chromium for the browser tests here: trying to install it.\n")
    for command in attempts:
        sys.stdout.write(f"- {shlex.join(command)}\n")
        sys.stdout.flush()
        subprocess.run(command, check=False)  # whether it helped, the search below sees
    return find_chromium(python)


def main() -> int:
    """Run pytest with the user's arguments; returns its exit code, or 2 where CI has no browser."""
    if not ready_browser(sys.executable) and os.environ.get("CI") == "true":
        sys.stderr.write(f"{NO_BROWSER}\nWith CI=true that is an error: nothing was tested.\n")
        return 2
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by a job in a shell's background
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup
    return pytest.console_main()


if __name__ == "__main__":
    sys.exit(main())
