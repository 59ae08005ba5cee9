"""Work in a process of its own, followed on the console until it ends."""

import subprocess
import time
from collections.abc import Callable, Mapping

from rich.console import Console

from trainer.console.bar import Bar
from trainer.console.errors import show_note
from trainer.contract import stops
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
    show: Callable[[Event, Bar], None],
    console: Console,
) -> int:
    """Start work, show its events until it ends, and return its exit code; `ENDED_BY_SIGNAL` if it was ended at once.

    The first Ctrl-C, SIGTERM or SIGHUP asks it to stop and save, the second ends it at once.

    `start` starts its process. The bar names a phase as `phases` does; the first Ctrl-C says `stopping`; `show` shows
    all events other than phases and warnings.
    """
    cursor = work.events_file.stat().st_size if work.events_file.exists() else 0
    asked = 0
    with stops.heard(lambda _times: None) as heard, Bar(console) as bar:
        child = start()
        while True:
            ended = child.poll() is not None  # asked before reading, so that no event is missed
            events, cursor, _ = read_events(work.events_file, cursor)
            for event in events:
                if isinstance(event, Phase):
                    bar.show(phases.get(event.name, event.name), event.done, event.total)
                elif isinstance(event, Warned):
                    show_note(event.message, event.hint, console)
                else:
                    show(event, bar)
            if ended:
                return child.returncode
            if heard.times > asked:
                asked = heard.times
                if asked > 1 and process.force_quit(work):
                    return stops.ENDED_BY_SIGNAL
                work.request("end" if heard.by_system else "stop")
                console.print(f"{stopping}… (Ctrl-C again ends at once)")
            bar.tick()
            time.sleep(POLL_SECONDS)


def wait(child: subprocess.Popen[bytes], what: str, console: Console) -> int:
    """Returns the exit code of a process that ends by itself, or that is ended when this one is asked to.

    Meanwhile it shows `what` the process does.
    """
    asked = 0
    with stops.heard(lambda _times: None) as heard, Bar(console) as bar:
        bar.show(what, 0, 0)
        while child.poll() is None:
            bar.tick()
            if heard.times > asked:
                asked = heard.times
                child.terminate()
            time.sleep(POLL_SECONDS)
    return stops.ENDED_BY_SIGNAL if asked and child.returncode != 0 else child.returncode
