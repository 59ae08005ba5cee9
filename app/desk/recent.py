"""The projects as cards: a picture, what is trained, and when it was changed."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TypedDict

from app.desk.presets import preset_title
from app.desk.state import Desk
from app.kit.text import say
from app.server.files import thumbnail_url
from trainer.contract.errors import TrainerError
from trainer.contract.home import Home, user_path
from trainer.dataset.scan import look
from trainer.projects.project import Project
from trainer.runs.queue import Queue

MOST = 24
PICTURES = 3


class RecentData(TypedDict):
    """A project, ready for JSON."""

    name: str
    about: str
    state: str  # of its newest run; empty if there is none
    pictures: list[str]  # addresses


def recents(home: Home, tongue: str) -> list[RecentData]:
    """Returns the projects, that changed last first."""
    return [_recent(project, tongue) for project in Project.all(home)[:MOST]]


def _recent(project: Project, tongue: str) -> RecentData:
    home, about, pictures = project.home, [], []
    with suppress(TrainerError, OSError):
        desk = Desk.of(home, project)
        about = [preset_title(home, desk.entered.preset, tongue)] if desk.entered.preset else []
        folder = str(desk.values["dataset.images"]).strip()
        if folder:
            items, _ = look(user_path(folder))
            about.append(say(tongue, "project.images", images=len(items)))
            pictures = [thumbnail_url(item.path) for item in items[:PICTURES]]
    with suppress(OSError):
        about.append(time.strftime("%Y-%m-%d %H:%M", time.localtime(project.file.stat().st_mtime)))
    return {"name": project.name, "about": " · ".join(about), "state": _state(project, tongue), "pictures": pictures}


def _state(project: Project, tongue: str) -> str:
    runs = project.runs()
    if not runs:
        return ""
    active = Queue(project.home).active()
    if active is not None and any(run.path == active.path for run in runs):
        return say(tongue, "project.training")
    return say(tongue, "project.runs", runs=len(runs))
