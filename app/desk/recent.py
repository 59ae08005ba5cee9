"""The projects as cards: a picture, what is trained, and when it was changed."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypedDict

from app.desk.presets import preset_title
from app.desk.state import Desk
from app.kit.text import say
from app.server.files import thumbnail_url
from trainer.contract.errors import TrainerError
from trainer.contract.home import Home, user_path
from trainer.dataset.folders import listing
from trainer.projects.project import Project
from trainer.runs.folder import RunFolder
from trainer.runs.queue import Queue

MOST = 24
PICTURES = 3
PREVIEW = re.compile(r"(\d+)-(\d+)\.png")  # step and prompt


class RecentData(TypedDict):
    """A project, ready for JSON."""

    name: str
    about: str
    state: str  # training, or how many runs; empty if there are none
    live: bool  # whether one of its runs is being trained
    pictures: list[str]  # addresses


def recents(home: Home, tongue: str) -> list[RecentData]:
    """Returns the projects, that changed last first."""
    projects, active = Project.all(home)[:MOST], Queue(home).active()
    runs: dict[str, list[RunFolder]] = {project.name: [] for project in projects}
    for run in RunFolder.all(home):
        runs.get(run.project(), []).append(run)
    live = active.project() if active is not None else ""
    return [_recent(project, runs[project.name], live == project.name, tongue) for project in projects]


def _recent(project: Project, runs: Sequence[RunFolder], live: bool, tongue: str) -> RecentData:
    about, pictures = [], next(filter(None, map(last_previews, runs)), [])
    with suppress(TrainerError, OSError):
        desk = Desk.of(project.home, project)
        about = [preset_title(project.home, desk.entered.preset, tongue)] if desk.entered.preset else []
        folder = str(desk.values["dataset.images"]).strip()
        if folder:
            images = list(listing(user_path(folder)).images.values())
            about.append(say(tongue, "project.images", images=len(images)))
            pictures = pictures or images
    with suppress(OSError):
        about.append(time.strftime("%Y-%m-%d %H:%M", time.localtime(project.file.stat().st_mtime)))
    state = say(tongue, "project.training") if live else say(tongue, "project.runs", runs=len(runs)) if runs else ""
    shown = [thumbnail_url(picture) for picture in pictures[:PICTURES]]
    return {"name": project.name, "about": " · ".join(about), "state": state, "live": live, "pictures": shown}


def last_previews(run: RunFolder) -> list[Path]:
    """The previews of the last step at which there are any, in the order of their prompts; not those of the base."""
    files = run.samples.iterdir() if run.samples.is_dir() else []
    found = [(int(match[1]), int(match[2]), file) for file in files if (match := PREVIEW.fullmatch(file.name))]
    last = max((step for step, _, _ in found), default=0)
    return [file for step, _, file in sorted(found) if step == last > 0]
