"""Caption the images of a folder.

The folder is only read, and the page can undo the captions. The same command resumes one that was stopped.
"""

from rich.console import Console

from trainer.captioning.catalogue import CAPTIONERS, CaptionSettings, caption_settings
from trainer.captioning.jobs import MODULE, Progress, prepare
from trainer.console.errors import FAILED, show_error
from trainer.console.flags import Flags, Parser
from trainer.console.progress import follow
from trainer.contract.events import Event, RunFailed
from trainer.contract.home import Home
from trainer.contract.stops import ENDED_BY_SIGNAL
from trainer.contract.units import size
from trainer.runs import process

USAGE = "DIR --with NAME"
PHASES = {
    "download": "Downloading the model (MiB)",
    "load": "Loading the model",
    "compare": "Reading captioned images",
    "caption": "Captioning",
}


def add_flags(parser: Parser, folder: str = "caption") -> None:
    """Add a flag for each setting; `folder` is the flag before the folder, if not simply the first word."""
    ways = [
        f"  {one.name:13} {one.sentence}{f' Model: {one.amount}.' if one.amount else ''}" for one in CAPTIONERS.values()
    ]
    parser.epilog = "\n".join(["captioners (--with):", *ways])
    parser.add_argument(folder, metavar="DIR", help="Folder with the images.")
    parser.add_argument("--with", dest="captioner", metavar="NAME", required=True, help="One of the captioners below.")
    for name, field in CaptionSettings.model_fields.items():
        flag, about = f"--{name.replace('_', '-')}", str(field.description)
        if field.annotation is bool:
            parser.add_argument(flag, action="store_true", help=about)
        elif name not in ("folder", "captioner"):
            default = f" (default {field.default})" if field.default else ""
            parser.add_argument(flag, metavar="X", help=about + default)


def run(flags: Flags, console: Console) -> int:
    """Caption a folder and watch until the end; returns 0 when it completed or was stopped, 2 when it failed."""
    home = Home.find(flags.pop("home", None))
    settings = caption_settings({"folder": flags.pop("caption"), **flags})
    captioner = CAPTIONERS[settings.captioner]
    job = prepare(home, settings)
    if captioner.repository and captioner.here(settings.model) is None:
        wanted = captioner.look(settings.model)
        console.print(f"{wanted.name}: {size(wanted.missing_bytes)} will be downloaded first.", markup=False)
    found = len(job.results().done)
    resuming = f"resuming after {found} images, " if found else ""
    console.print(f"{captioner.label}: {resuming}Ctrl-C stops.", markup=False, soft_wrap=True)

    def show(event: Event, _bar: object) -> None:
        """Show why it failed."""
        if isinstance(event, RunFailed):
            show_error(event, console)

    code = follow(
        job, lambda: process.work(job, MODULE), PHASES, "Stopping after this image", show=show, console=console
    )
    if code == ENDED_BY_SIGNAL:
        console.print("Ended at once; the captions found so far are kept. The same command resumes it.")
        return code
    console.print(summary(job.progress()), markup=False, soft_wrap=True)
    if code not in (0, FAILED):
        console.print(
            f"The process ended unexpectedly (exit code {code}); see {job.log_file}. The same command resumes it.",
            style="red",
            markup=False,
        )
    return FAILED if code else 0


def summary(progress: Progress) -> str:
    """Returns the outcome in one sentence."""
    parts = {
        "captioned": progress.captioned,
        "without a result": progress.without,
        "keep their caption": progress.kept,
        "unreadable": progress.unreadable,
    }
    counts = ", ".join(f"{count} {what}" for what, count in parts.items() if count) or "nothing to do"
    return f"{progress.status.capitalize()}: {counts}."
