"""Automatic captions from the Dataset page: started, watched and stopped here, made by a process of their own."""

from pathlib import Path
from typing import Any, TypedDict

from app.dataset.grid import Asked
from app.kit.questions import Answer, answer
from app.kit.text import say
from app.kit.wording import explained
from trainer.captioning.catalogue import CAPTIONERS, caption_settings
from trainer.captioning.jobs import CaptionJob, Progress, start
from trainer.contract.home import Home

AT_WORK = ("waiting", "running")


class CaptionerData(TypedDict):
    """One way to caption."""

    name: str
    label: str
    sentence: str
    model: str  # its usual one on the hub; empty where it needs none
    size: str  # of that model
    install: str  # what to type first; empty where everything is here
    details: bool  # whether the wished length counts


class JobData(TypedDict):
    """How far a folder's captioning is."""

    state: str  # "none", or as of a run
    working: bool
    report: str
    done: int
    of: int


class Captioning(Asked):
    """How to caption the folder."""

    captioner: str
    model: str = ""
    detail: str = "detailed"
    overwrite: bool = False
    download: bool = False

    def settings(self) -> dict[str, Any]:
        """Returns the captioner's settings."""
        chosen = self.model_dump(include={"folder", "captioner", "overwrite", "detail"})
        return {**chosen, "model": self.model.strip(), "download": self.download}


def captioners() -> list[CaptionerData]:
    """All ways to caption, the simplest first."""
    return [
        {
            "name": one.name,
            "label": one.label,
            "sentence": one.sentence,
            "model": one.repository,
            "size": one.amount,
            "install": "" if one.installed else one.install_command,
            "details": one.name == "florence2",
        }
        for one in CAPTIONERS.values()
    ]


def answers(home: Home) -> list[Answer]:
    """The functions that the script calls for automatic captions, by their names."""

    def captioning(asked: Asked, tongue: str) -> JobData:
        """How far it is."""
        return job_data(_job(home, asked), tongue)

    def caption_start(asked: Captioning, tongue: str) -> JobData:
        """Start, or resume where it ended."""
        return job_data(start(home, caption_settings(asked.settings())), tongue)

    def caption_stop(asked: Asked, tongue: str) -> JobData:
        """End after the present image; what was found by then is kept."""
        job = _job(home, asked)
        if job.exists:
            job.request("stop")
        return job_data(job, tongue)

    return [answer(Asked, captioning), answer(Captioning, caption_start), answer(Asked, caption_stop)]


def job_data(job: CaptionJob, tongue: str) -> JobData:
    """How far the job is, ready for JSON."""
    if not job.exists:
        return {"state": "none", "working": False, "report": "", "done": 0, "of": 0}
    made = job.progress()
    working = made.status in AT_WORK
    report = _at_work(made, tongue) if working else _ended(made, tongue)
    return {"state": made.status, "working": working, "report": report, "done": made.done, "of": made.total}


def _job(home: Home, asked: Asked) -> CaptionJob:
    return CaptionJob.of(home, Path(asked.folder))


def _at_work(made: Progress, tongue: str) -> str:
    phase = made.phase if made.phase in ("download", "load", "compare", "caption") else "begin"
    return say(tongue, f"dataset.caption.{phase}", done=made.done, of=made.total)


def _ended(made: Progress, tongue: str) -> str:
    """What came of it: counts, and what went wrong."""
    counts = say(
        tongue,
        "dataset.caption.ended",
        captioned=made.captioned,
        without=made.without,
        kept=made.kept,
        unreadable=made.unreadable,
    )
    if made.failed is not None:
        return explained(made.failed, tongue)
    return f"{say(tongue, 'dataset.caption.interrupted')} {counts}" if made.status == "interrupted" else counts
