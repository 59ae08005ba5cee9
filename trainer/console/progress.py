"""Work in a process of its own, followed on the console until it ends."""

import subprocess
import time
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from trainer.console.errors import show_note
from trainer.contract.events import Event, Phase, Warned, read_events
from trainer.runs import process
from trainer.runs.workfolder import WorkFolder

POLL_SECONDS = 0.25


def follow(
    work: WorkFolder,
    start: Callable[[], subprocess.Popen[bytes]],
    phases: Mapping[str, str],
    stopping: str,
    *,
    show: Callable[[Event, Progress], None],
    console: Console,
) -> int:
    """Start work, show its events until it ends, and return its exit code.

    The first Ctrl-C asks it to stop and save, the second ends it at once.

    `start` starts its process. The bar names a phase as `phases` does; the first Ctrl-C says `stopping`; `show` shows
    all events other than phases and warnings, and the bar has one task.
    """
    cursor = work.events_file.stat().st_size if work.events_file.exists() else 0
    child = start()
    presses = 0
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
    with Progress(*columns, console=console, refresh_per_second=4, speed_estimate_period=900) as bar:
        task = bar.add_task("Starting", total=None, note="")
        while True:
            try:
                ended = child.poll() is not None  # asked before reading, so that no event is missed
                events, cursor, _ = read_events(work.events_file, cursor)
                for event in events:
                    if isinstance(event, Phase):
                        shown = phases.get(event.name, event.name)
                        if bar.tasks[0].description != shown:
                            bar.reset(task, description=shown, note="")
                        bar.update(task, completed=event.done, total=event.total or None)
                    elif isinstance(event, Warned):
                        show_note(event.message, event.hint, console)
                    else:
                        show(event, bar)
                if ended:
                    return child.returncode
                time.sleep(POLL_SECONDS)
            except KeyboardInterrupt:
                presses += 1
                if presses == 1:
                    work.request("stop")
                    console.print(f"{stopping}… (Ctrl-C again ends at once)")
                else:
                    process.force_quit(work)
                    console.print("Ended at once; what was saved is kept.")


def wait(child: subprocess.Popen[bytes]) -> int:
    """Returns the exit code of a process that ends by itself, or by Ctrl-C."""
    try:
        return child.wait()
    except KeyboardInterrupt:
        child.terminate()
        return child.wait()
