"""How far some work is: a bar in a terminal, a plain line about every minute anywhere else."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from trainer.contract.units import duration

LINE_SECONDS = 55.0  # between two lines, so that with the time until somebody looks they come every minute


class Bar:
    """One piece of work and its phases; a context, and nothing of it stays in a terminal."""

    def __init__(self, console: Console, patience: float = 0.0) -> None:
        """Show it on this console; work that ends within `patience` seconds needs no lines."""
        self._quiet_until = time.monotonic() + patience
        self._console = console
        self._live = _live(console) if console.is_terminal and not console.is_dumb_terminal else None
        self._phase, self._done, self._total, self._note = "Starting", 0, 0, ""
        self._began = self._said = time.monotonic()
        self._first = 0  # done when this phase was first shown
        self._seen: set[tuple[str, str]] = set()  # phases of which a line said that they began, and ended

    def __enter__(self) -> Self:
        """Show it."""
        if self._live is not None:
            self._live.start()
            self._live.add_task(self._phase, total=None, note="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Take the bar away; of lines, the last says how far it came."""
        if self._live is not None:
            self._live.stop()
        elif self._done and self._seen and (self._phase, "end") not in self._seen:
            self._say()

    def show(self, phase: str, done: int, total: int, note: str = "") -> None:
        """Say how much of a phase is done; `total` is 0 while nobody knows."""
        if phase != self._phase:
            self._phase, self._began, self._first = phase, time.monotonic(), done
            if self._live is not None:
                self._live.reset(self._live.task_ids[0], description=phase)
        self._done, self._total, self._note = done, total, note
        if self._live is not None:
            self._live.update(self._live.task_ids[0], completed=done, total=total or None, note=note)
            return
        if time.monotonic() < self._quiet_until:
            return
        state = "end" if 0 < total <= done else "begun" if done else "waits"
        if (phase, state) not in self._seen:
            self._seen.add((phase, state))
            self._say()
        self.tick()

    def tick(self) -> None:
        """Say again how far it is if that was long ago, whether or not anything has happened."""
        if self._live is None and time.monotonic() - self._said >= LINE_SECONDS:
            self._say()

    def _say(self) -> None:
        """Print where it is as a line."""
        self._said = time.monotonic()
        spent = self._said - self._began
        parts = [f"{self._done}/{self._total}" if self._total else f"{self._done or ''}", self._note]
        if spent >= 1:
            parts.append(f"{duration(spent)} so far")
            more = self._done - self._first
            if 0 < self._done < self._total and more > 0:
                parts.append(f"ETA {duration(spent / more * (self._total - self._done))}")
        said = ", ".join(filter(None, parts))
        self._console.print(f"{self._phase}: {said}" if said else self._phase, markup=False, soft_wrap=True)


def _live(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    # 900 seconds: a step may take minutes on a CPU
    return Progress(*columns, console=console, refresh_per_second=4, speed_estimate_period=900)
