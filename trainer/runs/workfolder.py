"""The folder of a worker process: its events, its log, its process number, and requests to it."""

import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import psutil
from filelock import FileLock, Timeout

from trainer.contract.events import PROTOCOL, Reader, RunView, Status
from trainer.contract.files import atomic_write
from trainer.contract.home import Home
from trainer.contract.ours import check, check_all, read_plain
from trainer.runs.errors import NewerVersion, RunError

# "end" is "stop" by whoever ends processes, such as the system: there is no time for previews
Request = Literal["stop", "end", "pause", "sample", "save"]
BY_PEOPLE: tuple[Request, ...] = ("stop", "pause", "sample", "save")
PATIENCE = 10.0  # seconds that whoever starts a process may lock its folder

PROCESS = "process.json"

# What reading a small file of JSON may raise that is missing or holds something else
UNUSABLE = (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError)


def worker_in(folder: Path) -> psutil.Process | None:
    """The live process working in a folder, or None; a zombie or a reused process number does not count."""
    try:
        record = json.loads(read_plain(folder / PROCESS))
        process = psutil.Process(record["pid"])
        started = process.create_time()
        same = abs(started - record["started"]) < 1.0
        if not same and "since_boot" in record:  # the system clock was set, and both times with it
            same = abs(started - psutil.boot_time() - record["since_boot"]) < 1.0
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (*UNUSABLE, psutil.Error):
        return None


@dataclass(frozen=True)
class WorkFolder(ABC):
    """Where one process works; everybody may read it."""

    path: Path

    @property
    @abstractmethod
    def home(self) -> Home:
        """The home whose cache, edits and queue this work uses."""

    @abstractmethod
    def busy(self, pid: int | None) -> RunError:
        """Returns the error for whoever wants to start this work while that process does it."""

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
        return self.path / PROCESS

    @property
    def control(self) -> Path:
        """Folder of empty request files."""
        return self.path / "control"

    def view(self) -> RunView:
        """All events so far, folded."""
        return Reader(self.events_file).catch_up().view

    def refuse_newer(self) -> None:
        """Refuse what a newer version of this program has begun.

        Raises:
            NewerVersion: Its events are of a protocol that is not known here.
        """
        newest = self.view().protocol
        if newest > PROTOCOL:
            raise NewerVersion(name=self.path.name, seen=newest, known=PROTOCOL)

    def status(self, view: RunView | None = None) -> Status:
        """Returns the state of the work; pass its events if they are folded already."""
        view, worker = view or self.view(), self.process()
        if worker is not None and view.ended is not None and self.taken_up() > view.ended.t:
            return "running"  # continued after that end, and still loading
        status = view.status(worker is not None)
        # Killed while it was still loading: there is no event yet, but there was a process
        return "interrupted" if status == "waiting" and self.process_file.exists() else status

    def taken_up(self) -> float:
        """Returns when the process that works here was recorded, Unix seconds; it may be older."""
        try:
            record = json.loads(read_plain(self.process_file))
            return float(record.get("since", record["started"]))
        except (*UNUSABLE, AttributeError):  # it has just ended
            return 0.0

    def request(self, what: Request) -> None:
        """Ask the process for something; it looks once per step or image.

        Raises:
            NotOurs: The request would be written elsewhere.
        """
        check(self.control, folder=True)
        check(self.control / what, changed=True)
        self.control.mkdir(exist_ok=True)
        (self.control / what).touch()

    def asked_for(self, what: Request) -> float | None:
        """Returns the seconds since this was requested, None once the process has taken the request."""
        try:
            return max(time.time() - (self.control / what).stat().st_mtime, 0.0)
        except FileNotFoundError:
            return None

    def take_request(self, what: Request) -> bool:
        """Remove a request; returns whether there was one."""
        try:
            (self.control / what).unlink()
        except FileNotFoundError:
            return False
        return True

    def forget_requests(self) -> None:
        """Remove requests to an earlier process, before a new one starts so that none meant for it is lost."""
        for what in get_args(Request):
            self.take_request(what)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the folder so that nobody else starts work here; the system drops the lock with its process.

        Raises:
            NotOurs: Something in it leads elsewhere.
            RunError: Somebody else works here.
        """
        self.refuse_strange()
        self._refuse_others()
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(PATIENCE)
        except Timeout:
            other = self.process()
            raise self.busy(other.pid if other else None) from None
        try:
            self._refuse_others()  # the lock's last owner may have started one
            yield
        finally:
            lock.release()

    def refuse_strange(self) -> None:
        """Nothing happens if all in the folder can be written and deleted without harm to anything elsewhere.

        Raises:
            NotOurs: A link, pipe, device or socket lies there, or what is added to has a second name.
            FileTooLarge: The log is larger than any run's.
        """
        check_all(self.path)
        for file in (self.events_file, self.log_file, self.path / ".lock"):
            check(file, changed=True)
        Reader(self.events_file).look()

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
        """Remove the record of the process, which is about to end."""
        self.process_file.unlink(missing_ok=True)

    def process(self) -> psutil.Process | None:
        """The live process working here, or None; a zombie or a reused process number does not count."""
        return worker_in(self.path)
