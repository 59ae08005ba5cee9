"""The most private memory a process and its children have held, sampled."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

PERIOD_SECONDS = 0.02


class Peak:
    """Samples RssAnon of a process until it ends; `gib` is the most it held. Linux only."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.gib = 0.0
        self._process, self._done = process, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def wait(self) -> int:
        """The exit code, once the process has ended."""
        code = self._process.wait()
        self._done.set()
        self._thread.join()
        return code

    def _watch(self) -> None:
        status = Path(f"/proc/{self._process.pid}/status")
        while not self._done.wait(PERIOD_SECONDS):
            try:
                lines = status.read_text().splitlines()
            except OSError:
                return
            held = next((int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)
            self.gib = max(self.gib, held / 2**20)
