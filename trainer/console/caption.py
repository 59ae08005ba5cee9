"""Captioning a folder from the console: the same job and events as the page's."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from trainer.captioning.catalogue import CAPTIONERS, Captioner, CaptionSettings, caption_settings
from trainer.captioning.jobs import MODULE, CaptionJob, Progress, prepare
from trainer.console.errors import show_error
from trainer.console.flags import Parser
from trainer.console.progress import POLL_SECONDS, progress_bar
from trainer.contract.events import Event, Phase, RunFailed, Warned, read_events
from trainer.contract.home import Home
from trainer.contract.units import size
from trainer.runs import process

PHASES = {
    "download": "Fetching the model (MiB)",
    "load": "Loading",
    "compare": "Looking at captioned images",
    "caption": "Captioning",
}
NAMED = {"folder": "--caption", "captioner": "--with"}
METAVARS = {"folder": "DIR", "model": "DIR|OWNER/NAME"}


def caption(arguments: Sequence[str], console: Console) -> int:
    """Caption a folder and watch until the end; 0 when it ended as wished, 2 when it failed with a reason."""
    flags = vars(make_parser().parse_args(arguments))
    home = Home.find(flags.pop("home"))
    settings = caption_settings(flags)
    captioner = CAPTIONERS[settings.captioner]
    job = prepare(home, settings)
    if captioner.repository and captioner.here(settings.model) is None:
        wanted = captioner.look(settings.model)
        console.print(f"{wanted.name}: {size(wanted.missing_bytes)} will be fetched first.", markup=False)
    found = job.results().done
    going_on = f"going on after {len(found)} images, " if found else ""
    console.print(f"{captioner.label}: {going_on}Ctrl-C stops.", markup=False, soft_wrap=True)
    return follow(job, console)


def make_parser() -> argparse.ArgumentParser:
    """The flags of captioning, one for each of its settings."""
    ways = "\n".join(f"  {one.name:13} {one.sentence}{_cost(one)}" for one in CAPTIONERS.values())
    parser = Parser(
        prog="launch.py",
        description=f"Caption the images of a folder. The folder is only read; captions can be undone on the page.\n"
        f"The same command again goes on where one was stopped or killed.\n\nWays (--with):\n{ways}",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, field in CaptionSettings.model_fields.items():
        switch = field.annotation is bool
        parser.add_argument(
            NAMED.get(name, "--" + name.replace("_", "-")),
            dest=name,
            required=name in NAMED,
            default=argparse.SUPPRESS,
            help=_help(str(field.description), field.default, told=name not in NAMED and not switch),
            **({"action": "store_true"} if switch else {"metavar": METAVARS.get(name, "X")}),
        )
    parser.add_argument("--home", metavar="DIR", type=Path, help="Folder for runs and captions, as of every command.")
    return parser


def follow(job: CaptionJob, console: Console) -> int:
    """Caption in a process of its own and show its progress until it ends; Ctrl-C asks it to stop."""
    cursor = job.events_file.stat().st_size if job.events_file.exists() else 0
    child = process.work(job, MODULE)
    presses = 0
    with progress_bar(console) as bar:
        task = bar.add_task("Starting", total=None, note="")
        while True:
            try:
                ended = child.poll() is not None  # asked before reading, so that nothing written is missed
                events, cursor, _ = read_events(job.events_file, cursor)
                for event in events:
                    _tell(event, console)
                    if isinstance(event, Phase):
                        shown = PHASES.get(event.name, event.name)
                        bar.update(task, description=shown, completed=event.done, total=event.total or None)
                if ended:
                    break
                time.sleep(POLL_SECONDS)
            except KeyboardInterrupt:
                presses += 1
                if presses > 1:
                    process.force_quit(job)
                else:
                    job.request("stop")
                    console.print("Stopping after this image… (Ctrl-C again ends at once)")
    return _farewell(job, child.returncode, console)


def _tell(event: Event, console: Console) -> None:
    if isinstance(event, Warned):
        console.print(f"Note: {event.message} {event.hint}", style="yellow", markup=False)
    if isinstance(event, RunFailed):
        show_error(event, console)


def _farewell(job: CaptionJob, code: int, console: Console) -> int:
    """What came of it."""
    progress = job.progress()
    console.print(summary(progress), markup=False, soft_wrap=True)
    if code not in (0, 2):
        console.print(
            f"The process ended unexpectedly (exit code {code}); see {job.log_file}. The same command goes on.",
            style="red",
            markup=False,
        )
    return 0 if code == 0 else 2


def summary(progress: Progress) -> str:
    """What came of it, in one sentence."""
    parts = {
        "captioned": progress.captioned,
        "without a find": progress.without,
        "keep the caption they have": progress.kept,
        "unreadable": progress.unreadable,
    }
    told = ", ".join(f"{count} {what}" for what, count in parts.items() if count) or "nothing to do"
    return f"{progress.status.capitalize()}: {told}."


def _cost(captioner: Captioner) -> str:
    return f" Model: about {captioner.amount}." if captioner.repository else ""


def _help(description: str, default: object, told: bool) -> str:
    return f"{description} (default {default})" if told and default else description
