"""Runs as a screen shows them: new events folded in once for all tabs, and how long it will take."""

import threading
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

from trainer.contract.events import HEARTBEAT_SECONDS, RunView, Status, read_events
from trainer.contract.ours import check
from trainer.runs.folder import RunFolder

SPEED_STEPS = 100  # over so many newest steps speed is averaged: short enough to follow, long enough to hold previews
SILENT_SECONDS = 3 * HEARTBEAT_SECONDS
LATE = 10  # times a step's seconds
FAR_LONGER, AT_LEAST = 100, 300.0  # times the usual gap between steps, and seconds: a board of previews takes less


@dataclass
class Watch:
    """One run's events so far; `tick` reads what was added since."""

    run: RunFolder
    view: RunView = field(default_factory=RunView)
    version: int = 0  # goes up whenever a tick brought something, so that a screen knows whether it shows the newest
    _cursor: int = 0
    _size: int = -1

    def tick(self) -> bool:
        """Whether something was new. Without news this costs little.

        Raises:
            NotOurs: The log is no plain file.
        """
        check(self.run.events_file)
        try:
            size = self.run.events_file.stat().st_size
        except FileNotFoundError:
            size = 0
        if size == self._size:
            return False
        if size < self._cursor:  # not the file we read before
            self.view, self._cursor = RunView(), 0
        events, self._cursor, _ = read_events(self.run.events_file, self._cursor)
        self._size = size
        self.view.fold(events)
        self.version += bool(events)
        return bool(events)

    @property
    def status(self) -> Status:
        """The run's state now."""
        return self.run.status(self.view)

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
        """The run's watch, up to date."""
        with self._lock:
            watch = self._by_path.setdefault(run.path, Watch(run))
            watch.tick()
            return watch
