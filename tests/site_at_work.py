"""The page's server as a user starts it, in a home of its own, and what its trainings are doing."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil

from trainer.contract.home import Home
from trainer.contract.settings.config import validated
from trainer.runs.folder import RunFolder
from trainer.runs.queue import Queue

CHECKOUT = Path(__file__).parents[1]
DEMO = CHECKOUT / "assets" / "demo" / "character" / "train"  # 8 images: views x 2 = steps with the settings below
PATIENCE_SECONDS = 180
# Gradio 6.31, when a page is left: its /cancel and its stream of answers look for an entry, wait, and delete it; two at
# once both delete it. Nobody waits for the answer any more.
DELETED_TWICE = re.compile(
    r"Traceback \(most recent call last\):\n"
    r"(?:(?: .*|Traceback \(most recent call last\):|asyncio\.exceptions\.CancelledError.*|During handling of .*|"
    r"The above exception was .*|)\n)*"
    r'  File "[^"\n]*[/\\]gradio[/\\]routes\.py", line \d+, in \w+\n'
    r"    del (?:app\.iterators\[body\.event_id\]|blocks\._queue\.pending_messages_per_session\[session_hash\])\n"
    r"(?: +[~^]+\n)?KeyError: '\w+'\n"
)
QUICK: dict[str, dict[str, Any]] = {
    "model": {"base_model": "pocket", "device": "cpu"},
    "dataset": {"images": str(DEMO), "views": 4, "batch_size": 4, "resolution": 64},
    "adapter": {"rank": 4, "alpha": 4.0},
    "preview": {"prompts": ["fox"], "steps": 2},
    "output": {"files": 2, "checkpoint_every": 4},
}


def until(happened: Callable[[], Any], what: str) -> Any:
    """What `happened` gives back once that is true."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        if answer := happened():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"not within {PATIENCE_SECONDS} s: {what}")


def quick_run(home: Home, name: str, **changes: dict[str, Any]) -> RunFolder:
    """A run folder for a quick training; keyword arguments are sections of settings to change."""
    values = {section: {**QUICK[section], **changes.get(section, {})} for section in QUICK}
    values["output"]["name"] = name
    return RunFolder.create(home, validated(values))


class Site:
    """One server, always on the same port and home, however often it is started."""

    checkout = CHECKOUT

    def __init__(self, home: Path, *flags: str) -> None:
        self.home, self.flags = Home(home), flags
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = home / "server.txt"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        command = [sys.executable, "-m", "app.ui", "--no-browser", "--port", str(self.port), "--home", self.home.root]
        command += self.flags
        self.home.root.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join(filter(None, [str(self.checkout), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1", "PYTHONFAULTHANDLER": "1"}
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(command, cwd=self.checkout, env=environment, stdout=output, stderr=output)
        until(lambda: self.process.poll() is not None or self.answers("/"), "the page answers")
        assert self.process.poll() is None, self.output.read_text(encoding="utf-8")

    def answers(self, path: str, method: str = "GET", **headers: str) -> int:
        """HTTP status of a plain request, 0 while nobody answers."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection, suppress(OSError):
            connection.request(method, path, b"{}" if method == "POST" else None, headers)
            return connection.getresponse().status
        return 0

    def kill(self) -> None:
        """End the server as a crash would."""
        self.process.kill()
        self.process.wait()

    def complaints(self) -> str:
        """What the server's output says from its first traceback on, Gradio's own fault aside."""
        text = DELETED_TWICE.sub("", self.output.read_text(encoding="utf-8"))
        return text[text.find("Traceback") :] if "Traceback" in text else ""

    def train(self, name: str, **changes: dict[str, Any]) -> RunFolder:
        """Start a quick training beside the page; keyword arguments are sections of settings to change."""
        run = quick_run(self.home, name, **changes)
        Queue(self.home).start(run)
        return run

    def run(self, name: str) -> RunFolder:
        """The newest run of this LoRA name, awaited."""
        return until(lambda: next((r for r in RunFolder.all(self.home) if r.path.name.startswith(name)), None), name)

    def clear(self) -> None:
        """End all trainings, and remove every run with what is queued."""
        until(self._cleared, "no run is left")

    def _cleared(self) -> bool:
        with Queue(self.home)._changing():  # a start in progress is through, and nothing is handed over
            self.home.queue_file.unlink(missing_ok=True)
            for run in RunFolder.all(self.home):
                end(run)
            shutil.rmtree(self.home.runs, ignore_errors=True)  # what still writes there makes it fail
        return not self.home.runs.exists()


def end(run: RunFolder) -> None:
    """Kill the run's trainer, if it has one, and wait until it is gone."""
    trainer = run.process()
    if trainer is not None:
        with suppress(psutil.NoSuchProcess):
            trainer.kill()
        until(lambda: run.process() is None, f"{run.path.name}'s trainer ends")


def reached(run: RunFolder, step: int) -> bool:
    """Whether the run has trained so far."""
    return any(one.step >= step for one in run.view().steps)


def failure(run: RunFolder) -> str:
    """The run's newest event and the end of its log, to be told with a failed test."""
    events = run.events_file.read_text(encoding="utf-8").splitlines() if run.events_file.exists() else []
    log = run.log_file.read_text(encoding="utf-8")[-1000:] if run.log_file.exists() else ""
    return f"{json.dumps(events[-1:])}\n{log}"
