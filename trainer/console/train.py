"""Train in a process of its own, and show what it says until it ends."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import (
    Progress,
    TaskID,
)

from trainer.console.errors import FAILED, show_error
from trainer.console.progress import POLL_SECONDS, progress_bar
from trainer.contract.errors import isolated
from trainer.contract.events import (
    Event,
    Lora,
    Phase,
    RunFailed,
    RunFinished,
    RunStarted,
    RunView,
    Sample,
    Step,
    Warned,
    read_events,
)
from trainer.contract.system_errors import FileGone
from trainer.contract.units import size
from trainer.runs import process
from trainer.runs.errors import TrainerEnded
from trainer.runs.folder import RunFolder
from trainer.runs.process import Group
from trainer.runs.queue import Queue
from trainer.runs.sheets import before_after

PHASES = {
    "load": "Loading the base model",
    "download": "Fetching the base model (MiB)",
    "encode": "Encoding images",
    "protect": "Drawing what the base model is to be kept at",
    "train": "Training",
    "preview": "Drawing previews",
}


def train(run: RunFolder, group: Group, queued: bool, console: Console) -> int:
    """Train and watch until the end, or leave the run to the queue."""
    if group.machine > 0:
        return assist(run, group, console)
    if not queued:
        return follow(run, group, console)
    queue = Queue(run.home)
    if queue.start(run):
        console.print(f"Started in the background: {run.path.name}", markup=False, soft_wrap=True)
    else:
        console.print(f"{run.path.name} waits as number {len(queue.waiting())}.", markup=False, soft_wrap=True)
    return 0


def assist(run: RunFolder, group: Group, console: Console) -> int:
    """Compute for the first of several computers, where progress is shown, until it ends; Ctrl-C leaves it."""
    console.print(f"Computer {group.machine} of 0 to {group.machines - 1}; the first one shows the progress.")
    child = process.start(run, group)
    try:
        code = child.wait()
    except KeyboardInterrupt:
        child.terminate()
        code = child.wait()
    console.print("Done." if code == 0 else f"Ended early; see {run.log_file}.", markup=False, soft_wrap=True)
    return code


def follow(run: RunFolder, group: Group, console: Console) -> int:
    """Train in a process of its own and show its events until it ends; Ctrl-C asks it to stop and save."""
    console.print(f"Run folder: {run.path}", markup=False, soft_wrap=True)
    cursor = run.events_file.stat().st_size if run.events_file.exists() else 0
    child = process.start(run, group)
    presses = 0
    with progress_bar(console) as bar:
        screen = _Screen(bar, console)
        while True:
            try:
                ended = child.poll() is not None  # asked before reading, so that nothing written is missed
                events, cursor, _ = read_events(run.events_file, cursor)
                screen.show(events)
                if ended:
                    break
                time.sleep(POLL_SECONDS)
            except KeyboardInterrupt:
                presses += 1
                _stop(run, console, at_once=presses > 1)
    return _farewell(run, child.returncode, console)


def _stop(run: RunFolder, console: Console, at_once: bool) -> None:
    """First Ctrl-C: stop and save. Second: end at once, keeping the last checkpoint."""
    if at_once:
        process.force_quit(run)
        console.print("Ended at once; the last checkpoint is kept.")
        return
    run.request("stop")
    console.print("Stopping after this step and saving… (Ctrl-C again ends at once)")


class _Screen:
    """Events as a progress bar; everything worth keeping is printed above it."""

    def __init__(self, bar: Progress, console: Console) -> None:
        self._bar, self._console = bar, console
        self._task: TaskID = bar.add_task("Starting", total=None, note="")
        self._smooth: float | None = None
        self._steps_total = 0

    def show(self, events: list[Event]) -> None:
        """Bring the screen up to date."""
        for event in events:
            match event:
                case RunStarted():
                    self._steps_total = event.steps_total
                    if event.resumed_at:
                        self._console.print(f"Resumed at step {event.resumed_at} of {event.steps_total}.")
                case Phase():
                    self._phase(event)
                case Step():
                    self._step(event)
                case Sample(index=0):
                    self._console.print(f"Preview at step {event.step}: {event.file}", markup=False)
                case Lora():
                    self._console.print(f"Saved {event.file} ({size(event.bytes)})", markup=False)
                case Warned():
                    self._console.print(f"Note: {event.message} {event.hint}", style="yellow", markup=False)
                case _:
                    pass

    def _phase(self, event: Phase) -> None:
        self._bar.reset(self._task, description=PHASES.get(event.name, event.name), total=event.total, note="")
        self._bar.update(self._task, completed=event.done)

    def _step(self, event: Step) -> None:
        self._smooth = event.loss if self._smooth is None else 0.95 * self._smooth + 0.05 * event.loss
        note = f"loss {self._smooth:.4f}, {event.seconds:.2f} s/step, {event.memory_gib:.2f} GiB"
        self._bar.update(
            self._task, description="Training", total=self._steps_total or None, completed=event.step, note=note
        )


def _farewell(run: RunFolder, code: int, console: Console) -> int:
    """What came out, and where it lies.

    Raises:
        FileGone: The run's folder was moved or deleted.
        TrainerEnded: Nothing says how it ended.
    """
    view = run.view()
    match view.ended:
        case RunFailed() as failed if code == 2:  # else the ending is an earlier process's
            show_error(failed, console)
            return FAILED
        case RunFinished() as finished if code == 0:
            _report(run, view, finished, console)
            return 0
        case _:
            if not run.config_file.is_file():
                raise FileGone(str(run.path))
            raise TrainerEnded(run.path.name, code, run.log_file)


def _report(run: RunFolder, view: RunView, finished: RunFinished, console: Console) -> None:
    console.print(
        f"[bold green]{finished.reason.capitalize()}[/] at step {finished.step} after {finished.seconds:.0f} s."
    )
    if view.loras:
        newest = view.loras[-1]
        console.print(f"LoRA file:    {run.path / newest.file} ({size(newest.bytes)})", markup=False, soft_wrap=True)
    with isolated("The before/after sheet", lambda _code, message, _hint: console.print(message, markup=False)):
        sheet = before_after(run, view)
        if sheet:
            console.print(f"Before/after: {sheet}", markup=False, soft_wrap=True)
    if finished.reason != "completed":
        console.print(f"Go on with:   python launch.py --resume {run.path.name}", markup=False)
