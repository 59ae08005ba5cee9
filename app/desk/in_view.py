"""Which run and which project an address means."""

from __future__ import annotations

from contextlib import suppress
from itertools import chain

from pydantic import BaseModel

from app.desk import changes
from trainer.contract.errors import TrainerError
from trainer.contract.home import Home
from trainer.projects.project import Project
from trainer.runs.folder import RunFolder
from trainer.runs.queue import Queue


class Opened(BaseModel):
    """What an address says."""

    project: str = ""
    images: str = ""
    run: str = ""
    live: bool = False  # the room that shows a run, whichever it is
    new: bool = False


def run_in_view(home: Home, run: str, project: str) -> RunFolder | None:
    """The run of an address: named, else of its project, else the one in training, else the newest; None: no runs."""
    runs, active = RunFolder.all(home), Queue(home).active()
    ordered = [one for one in runs if active is not None and one.path == active.path] + runs
    wanted = chain(  # lazily: a run's project stands in its file of settings
        (one for one in ordered if one.path.name == run),
        (one for one in ordered if project and one.project() == project),
        ordered,
    )
    return next(wanted, None)


def opened_project(home: Home, asked: Opened) -> Project | None:
    """The project of an address: named, of its run or its images, else the one that changed last; None: a new one."""
    if asked.new:
        return None
    run = run_in_view(home, asked.run, asked.project) if asked.live else None
    for name in (run.project() if run is not None else "", asked.project):
        with suppress(TrainerError):
            if name:
                return Project.named(home, name)
    if asked.images:
        return changes.of_images(home, asked.images)
    return next(iter(Project.all(home)), None)
