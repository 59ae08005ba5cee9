"""The folder of work that a process of its own does: its events, its log, who works there, and what was asked of it."""

from __future__ import annotations

import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from filelock import FileLock, Timeout

from trainer.contract.events import PROTOCOL, RunView, Status, read_events
from trainer.contract.files import atomic_write
from trainer.runs.errors import NewerVersion, RunError

Request = Literal["stop", "pause", "sample", "save"]
PATIENCE = 10.0  # seconds that one who starts a process may hold its folder before that process does

# What reading a small file of JSON may raise that is missing or holds something else
UNUSABLE = (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class WorkFolder(ABC):
    """Where one process works, in sight of everybody else."""

    path: Path

    @abstractmethod
    def busy(self, pid: int | None) -> RunError:
        """The error of whoever wants this work while that process does it."""

    @property
    def events_file(self) -> Path:
        """The append-only log."""
        return self.path / "events.jsonl"

    @property
    def log_file(self) -> Path:
        """Raw output of the process, tracebacks included."""
        return self.path / "log.txt"

    @property
    def process_file(self) -> Path:
        """Number and start time of the process."""
        return self.path / "process.json"

    @property
    def control(self) -> Path:
        """Folder of empty request files."""
        return self.path / "control"

    def view(self) -> RunView:
        """All events so far, folded."""
        return RunView().fold(read_events(self.events_file)[0])

    def refuse_newer(self) -> None:
        """Leave alone what a later version of this program has begun.

        Raises:
            NewerVersion: Its events are of a protocol that is not known here.
        """
        newest = max((event.v for event in read_events(self.events_file)[0]), default=PROTOCOL)
        if newest > PROTOCOL:
            raise NewerVersion(self.path.name, newest, PROTOCOL)

    def status(self, view: RunView | None = None) -> Status:
        """How the work stands; who has folded its events already gives them."""
        view, worker = view or self.view(), self.process()
        if worker is not None and view.ended is not None and self.taken_up() > view.ended.t:
            return "running"  # continued after that end, and still loading
        status = view.status(worker is not None)
        # Killed while it was still loading: there is no event yet, but there was a process
        return "interrupted" if status == "waiting" and self.process_file.exists() else status

    def taken_up(self) -> float:
        """When the process that works here was written down; it may have been started long before."""
        try:
            record = json.loads(self.process_file.read_text())
            return float(record.get("since", record["started"]))
        except (*UNUSABLE, AttributeError):  # it has just ended
            return 0.0

    def request(self, what: Request) -> None:
        """Ask the process for something; it looks once per step or image."""
        self.control.mkdir(exist_ok=True)
        (self.control / what).touch()

    def asked_for(self, what: Request) -> float | None:
        """Seconds since this was asked for, while the process has not taken it up; else None."""
        try:
            return max(time.time() - (self.control / what).stat().st_mtime, 0.0)
        except FileNotFoundError:
            return None

    def take_request(self, what: Request) -> bool:
        """Whether something was asked for; asking is then over."""
        try:
            (self.control / what).unlink()
        except FileNotFoundError:
            return False
        return True

    def forget_requests(self) -> None:
        """Drop what an earlier process was asked for; done before a new one starts, so nothing meant for it is lost."""
        for old in self.control.glob("*"):
            old.unlink()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else starts work here, or works, until the end of this; the system drops the lock with its process.

        Raises:
            RunError: Somebody else works here.
        """
        self._refuse_others()
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(PATIENCE)
        except Timeout:
            other = self.process()
            raise self.busy(other.pid if other else None) from None
        try:
            self._refuse_others()  # who held the lock may have started one
            yield
        finally:
            lock.release()

    def claim(self) -> None:
        """Write down that this very process works here.

        Raises:
            RunError: Another one does.
        """
        self._refuse_others()
        self.record(psutil.Process())

    def _refuse_others(self) -> None:
        other = self.process()
        if other is not None and other.pid != os.getpid():
            raise self.busy(other.pid)

    def record(self, worker: psutil.Process) -> None:
        """Write down which process works here."""
        started = worker.create_time()
        since_boot = started - psutil.boot_time()
        record = {"pid": worker.pid, "started": started, "since_boot": since_boot, "since": time.time()}
        atomic_write(self.process_file, json.dumps(record).encode())

    def release(self) -> None:
        """Let the work be nobody's: its process is about to end."""
        self.process_file.unlink(missing_ok=True)

    def process(self) -> psutil.Process | None:
        """The live process working here, or None; a zombie or a reused process number does not count."""
        try:
            record = json.loads(self.process_file.read_text())
            process = psutil.Process(record["pid"])
            started = process.create_time()
            same = abs(started - record["started"]) < 1.0
            if not same and "since_boot" in record:  # the system clock was set, and both times with it
                same = abs(started - psutil.boot_time() - record["since_boot"]) < 1.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except (*UNUSABLE, psutil.Error):
            return None
