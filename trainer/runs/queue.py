"""Runs that wait their turn: one trains, the others stand in `queue.json`; no page needs to be open.

Who starts a run, and a trainer that ends, both call `advance`: under one file lock, the first waiting run is started
if no other one is alive.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from filelock import FileLock

from trainer.contract.errors import DeviceLost, DiskFull, Terminated
from trainer.contract.events import RunFailed, RunFinished
from trainer.contract.files import atomic_write
from trainer.contract.home import Home
from trainer.contract.ours import check, read_plain
from trainer.runs import process
from trainer.runs.errors import NewerVersion, RunError, RunMissing
from trainer.runs.folder import RunFolder
from trainer.runs.workfolder import UNUSABLE

VERSION = 1


@dataclass(frozen=True)
class Queue:
    """The home's queue. Every method may be called by several processes at once."""

    home: Home

    def waiting(self) -> list[RunFolder]:
        """The runs that wait, in the order in which they will be trained; those deleted since are left out."""
        try:
            names = json.loads(read_plain(self.home.queue_file))["waiting"]
            runs = [RunFolder(self.home.runs / str(name), self.home) for name in names]
        except UNUSABLE:  # none yet, or not ours to read: nobody waits
            return []
        there = os.path.isfile  # unlike Path's own it says no to a name that none can have
        return [run for run in runs if run.path.parent == self.home.runs and there(run.config_file)]

    def active(self) -> RunFolder | None:
        """The run whose process is alive, other than this very process."""
        for run in RunFolder.all(self.home):
            trainer = run.process()
            if trainer is not None and trainer.pid != os.getpid():
                return run
        return None

    def start(self, run: RunFolder) -> bool:
        """Train the run now if nothing else is trained, else put it last in the queue.

        Returns:
            Whether it was started at once.

        Raises:
            RunBusy: It is being trained already.
        """
        busy = run.process()
        if busy is not None:
            raise run.busy(busy.pid)
        with self._changing() as runs:
            if run not in runs:
                runs.append(run)
        return self.advance() == run

    def advance(self) -> RunFolder | None:
        """Start the first waiting run, unless one is alive; returns what was started.

        A run that cannot be started leaves the queue, and the next one is tried.
        """
        with self._changing() as runs:
            return self._start_first(runs)

    def _start_first(self, runs: list[RunFolder]) -> RunFolder | None:
        while runs and self.active() is None:
            run = runs.pop(0)
            try:
                process.start(run)
            except (RunError, OSError):
                continue
            return run
        return None

    def _refuse_newer(self) -> None:
        """What a later version wrote is not overwritten."""
        with suppress(OSError, ValueError, KeyError, TypeError):  # nothing to lose
            seen = json.loads(read_plain(self.home.queue_file))["v"]
            if seen > VERSION:
                raise NewerVersion(name=self.home.queue_file.name, seen=seen, known=VERSION)

    def hand_over(self, run: RunFolder) -> None:
        """Called by the run's own trainer as its last act: start the next one.

        Unless `_holds`. The run counts as ended from here on, although its process is still alive: a run queued at that
        moment would otherwise never start.
        """
        with self._changing() as runs:
            run.release()
            if not _holds(run):
                self._start_first(runs)

    def take_over(self) -> None:
        """Start the next run after a trainer that was killed, which could not do so itself.

        One that was asked to end before, and had a step too long for it, counts as ended by the system.
        """
        last = max(RunFolder.all(self.home), key=_seen, default=None)
        killed = last is not None and last.process_file.exists() and last.asked_for("end") is None
        if last is None or killed or not _holds(last):
            self.advance()

    def move(self, run: RunFolder, place: int) -> None:
        """Move a waiting run to this position; 0 is next.

        Raises:
            RunMissing: It is not in the queue.
        """
        with self._changing() as runs:
            self._take(runs, run)
            runs.insert(max(place, 0), run)

    def remove(self, run: RunFolder) -> None:
        """Remove a run from the queue; its folder stays.

        Raises:
            RunMissing: It is not in the queue.
        """
        with self._changing() as runs:
            self._take(runs, run)

    def _take(self, runs: list[RunFolder], run: RunFolder) -> None:
        try:
            runs.remove(run)
        except ValueError:
            raise RunMissing(run.path.name, [waiting.path.name for waiting in runs]) from None

    @contextmanager
    def _changing(self) -> Iterator[list[RunFolder]]:
        """The waiting runs, to be changed by one process at a time; written if they were."""
        self.home.root.mkdir(parents=True, exist_ok=True)
        lock = self.home.root / ".queue.lock"
        check(lock, changed=True)
        check(self.home.queue_file)
        with FileLock(lock):
            self._refuse_newer()
            before = self.waiting()
            runs = list(before)
            yield runs
            if runs != before:
                names = [run.path.name for run in runs]
                atomic_write(self.home.queue_file, json.dumps({"v": VERSION, "waiting": names}, indent=1).encode())


def _seen(run: RunFolder) -> float:
    """When a trainer was last seen at this run, Unix seconds; 0 for one that waits."""
    seen = 0.0
    for file in (run.process_file, run.events_file):
        with suppress(OSError):  # it has neither yet, or has just ended
            seen = max(seen, file.stat().st_mtime)
    return seen


def _holds(run: RunFolder) -> bool:
    """Whether the others keep waiting after this run's end.

    They do after a pause, which frees the GPU, and after what would stop them too: a system that shuts down, a full
    disk, a lost GPU without which they would train on the CPU.
    """
    try:
        ended = run.view().ended
    except OSError:  # nothing in it says that they would be stopped too
        return False
    match ended:
        case RunFinished(reason=reason, by_system=by_system):
            return reason == "paused" or by_system
        case RunFailed(code=code):
            return code in (Terminated.code, DiskFull.code, DeviceLost.code)
    return True
