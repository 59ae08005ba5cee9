"""Runs as a screen shows them: new events folded in once for all tabs, and how long it will take."""

import threading
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Literal

from trainer.contract.events import HEARTBEAT_SECONDS, Reader, RunView, Status
from trainer.runs.folder import RunFolder

SPEED_STEPS = 100  # over so many newest steps speed is averaged: short enough to follow, long enough to hold previews
SILENT_SECONDS = 3 * HEARTBEAT_SECONDS
LATE = 10  # times a step's seconds
FAR_LONGER, AT_LEAST = 100, 300.0  # times the usual gap between steps, and seconds: a board of previews takes less
AT_ONCE = 4 << 20  # bytes of a log that are read while somebody waits, some 25,000 steps

_READS_LONG = threading.Lock()  # one long log at a time: the others are to be answered, and the training to go on


@dataclass
class Watch:
    """One run's events so far; `tick` reads what was added since, a long log in the background."""

    run: RunFolder
    version: int = 0  # goes up whenever something came, so that a screen knows whether it shows the newest
    behind: bool = False  # the log is being read: what is shown is not yet all
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._reader = Reader(self.run.events_file)
        self._done = threading.Event()
        self._failed: OSError | None = None

    @property
    def view(self) -> RunView:
        """The events so far, folded."""
        return self._reader.view

    def tick(self) -> bool:
        """Whether something was new. Without news this costs little.

        Raises:
            NotOurs: The log is no plain file.
            FileTooLarge: It is larger than any run's.
        """
        with self.lock:
            if self._failed is not None:
                failed, self._failed, self._reader = self._failed, None, Reader(self.run.events_file)
                raise failed
            if self.behind or not self._reader.look():
                return False
            self._reader.begin()
            if self._reader.size - self._reader.cursor > AT_ONCE:
                self.behind = True
                self._done.clear()
                threading.Thread(target=self._catch_up, daemon=True).start()
                return False
            return self._read()

    def wait(self) -> None:
        """Return when nothing is left to be read."""
        while self.behind:
            self._done.wait()
            self.tick()

    def _read(self) -> bool:
        """Read what is there now, up to so much that nobody has to wait for it."""
        any_read = False
        while self._reader.cursor < self._reader.size and self._reader.piece():
            any_read = True
        self.version += any_read
        return any_read

    def _catch_up(self) -> None:
        """Read a long log, one at a time of all, and keep a summary of it."""
        try:
            with _READS_LONG:
                while self._one_piece():
                    pass
        except OSError as error:  # whoever asks next is told
            self._failed = error
        finally:
            self.version += 1
            self.behind = False
            self._done.set()

    def _one_piece(self) -> bool:
        with self.lock:
            more = self._reader.piece()
            self.version += more
            if not more:
                self._reader.look()
                self._reader.keep_if_due(last=True)
            return more

    @property
    def status(self) -> Status | Literal["reading"]:
        """The run's state now, or that its log is being read."""
        return "reading" if self.behind else self.run.status(self.view)

    @property
    def steps_total(self) -> int:
        """Steps planned; 0 while that is not known."""
        return self.view.started.steps_total if self.view.started else 0

    @property
    def step(self) -> int:
        """The newest finished step."""
        return self.view.steps[-1].step if self.view.steps else 0

    @property
    def seconds_per_step(self) -> float | None:
        """Seconds by the clock, so with previews and saving, over the newest steps of the present process.

        A gap far longer than the others does not count: the computer slept, or its clock was set.
        """
        since = self.view.started.seq if self.view.started else -1
        recent = [step for step in self.view.steps[-SPEED_STEPS:] if step.seq > since]
        if len(recent) < 2:
            return recent[0].seconds if recent else None
        gaps = [later.t - sooner.t for sooner, later in pairwise(recent)]
        longest = max(FAR_LONGER * median(gaps), AT_LEAST)
        return sum(gap if 0 <= gap <= longest else median(gaps) for gap in gaps) / len(gaps)

    def hangs_since(self, now: float) -> float | None:
        """Returns since when a running trainer is not responding, or makes no progress; None if all is well."""
        if self.status != "running":
            return None
        since = self.run.taken_up()  # an earlier process's last word says nothing of this one
        if now - max(self.view.heard, since) > SILENT_SECONDS:
            return max(self.view.heard, since)
        moved = max(self.view.moved, since)
        return moved if now - moved > max(LATE * (self.seconds_per_step or 0.0), AT_LEAST) else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last step; None while unknown."""
        each = self.seconds_per_step
        return None if each is None or not self.steps_total else each * max(self.steps_total - self.step, 0)


class Watches:
    """The server's watches, one per run, shared by all tabs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_path: dict[Path, Watch] = {}

    def __call__(self, run: RunFolder) -> Watch:
        """The run's watch, up to date, or `behind` while a long log is read for the first time.

        Raises:
            NotOurs: The log is no plain file.
            FileTooLarge: It is larger than any run's.
        """
        with self._lock:
            watch = self._by_path.setdefault(run.path, Watch(run))
        watch.tick()
        return watch

    def whole(self, run: RunFolder) -> Watch:
        """The run's watch, up to date, however long that takes; raises what a call does."""
        watch = self(run)
        watch.wait()
        return watch
