"""The desk: the element of every room that keeps what is entered, shows what it means, and starts the training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import urlencode

import gradio as gr
from pydantic import BaseModel

from app.desk import changes
from app.desk.begin import start_run
from app.desk.folders import FoldersData, folders_in
from app.desk.images import images_html
from app.desk.in_view import Opened, opened_project
from app.desk.models import asked_of_hub, base_models
from app.desk.presets import preset_groups
from app.desk.recent import recents
from app.desk.state import Desk, StateData, state_of
from app.kit.action_errors import carded, reported
from app.kit.component import PRIVATE, Element, Leads
from app.kit.questions import Answer, answer
from app.kit.rows import answers as search_answers
from app.kit.rows import rows, sections
from app.kit.text import label, say, words
from trainer.contract.home import Home, user_path
from trainer.projects.project import Project
from trainer.projects.sets import is_set, rename

FLUSH = "async () => [await window.atelier.flush()]"  # what was typed a moment ago is kept before it is trained
RELOAD = "() => window.atelier.reload()"  # the project was changed by the server
PARTS = ("core", "rows", "list", "search", "header", "start", "aside", "drop", "browse", "bar")


class DeskElement(Element):
    """Its value is the project's name; empty before anything was entered."""

    SCRIPTS = ("elements.js", *(f"desk/{name}.js" for name in PARTS))

    def postprocess(self, value: Any) -> str:  # noqa: ANN401 - a name or None
        """The name."""
        return str(value or "")


class At(BaseModel):
    """Which project."""

    project: str = ""

    def of(self, home: Home) -> Project | None:
        """The project; None where nothing was entered yet.

        Raises:
            ProjectMissing: It is gone.
        """
        return Project.named(home, self.project) if self.project else None


class Entered(At):
    """What fields were changed to."""

    changes: dict[str, Any]
    held: float | None = None  # the learning strength to keep
    settled: bool = False  # no key will follow: a name may be used


class Chosen(At):
    """A choice that sets many settings."""

    what: Literal["preset", "goal", "model", "remedy", "smaller", "example", "text"]
    value: str = ""
    before: str = ""  # of a text: what it was when it was begun to be edited


class Seen(At):
    """What the page knows."""

    changes: int


class Folder(BaseModel):
    """An image folder, and the word that calls up what is in it."""

    images: str
    trigger_word: str = ""


class Renamed(At):
    """An image set, and what it is to be called."""

    images: str
    name: str


class Where(BaseModel):
    """A folder to look into."""

    path: str


class Model(BaseModel):
    """A base model."""

    base_model: str


class Nothing(BaseModel):
    """A question without anything in it."""


def answers(home: Home) -> list[Answer]:
    """The functions that the desk's script calls."""
    return [*_changing(home), *_looking(home), *search_answers()]


def _changing(home: Home) -> list[Answer]:
    def desk_enter(asked: Entered, tongue: str) -> StateData:
        """Keep what was entered."""
        project = asked.of(home)
        found = changes.entered(Desk.of(home, project), asked.changes, asked.held)
        project = changes.made(home, project, found, tongue)
        return state_of(home, changes.named_by_user(project) if asked.settled else project, tongue)

    def desk_choose(asked: Chosen, tongue: str) -> StateData:
        """Keep a choice and all that follows from it."""
        project = None if asked.what == "example" else asked.of(home)
        found = CHOICES[asked.what](Desk.of(home, project), asked)
        project = changes.made(home, project, found, tongue)
        return state_of(home, changes.named_by_user(project) if asked.what == "example" else project, tongue)

    def desk_rename_set(asked: Renamed, tongue: str) -> StateData:
        """Call an image set otherwise, wherever it is named."""
        project = asked.of(home)
        rename(home, user_path(asked.images), asked.name)
        return state_of(home, project, tongue)

    return [answer(Entered, desk_enter), answer(Chosen, desk_choose), answer(Renamed, desk_rename_set)]


CHOICES: dict[str, Callable[[Desk, Chosen], changes.Changes]] = {
    "preset": lambda desk, asked: changes.with_preset(desk, asked.value),
    "goal": lambda desk, asked: changes.with_goal(desk, asked.value),
    "model": lambda desk, asked: changes.with_model(desk, asked.value),
    "text": lambda _desk, asked: changes.with_text(asked.value, asked.before),
    "remedy": lambda desk, _asked: changes.with_remedy(desk),
    "smaller": lambda desk, _asked: changes.with_smaller(desk),
    "example": lambda _desk, _asked: changes.example(),
}


def _looking(home: Home) -> list[Answer]:
    def desk_open(asked: Opened, tongue: str) -> dict[str, Any]:
        """All that a page shows when it is opened."""
        return {
            "state": state_of(home, opened_project(home, asked), tongue),
            "rows": rows(tongue),
            "sections": sections(tongue),
            "words": words(tongue, "desk."),
            "presets": preset_groups(home, tongue),
        }

    def desk_news(asked: Seen, tongue: str) -> StateData | dict[str, Any]:
        """What another tab has entered; nothing if it is known."""
        project = asked.of(home)
        if project is None or project.read().changes == asked.changes:
            return {}
        return state_of(home, project, tongue)

    def desk_recent(_asked: Nothing, tongue: str) -> dict[str, Any]:
        """The projects, that changed last first."""
        return {"projects": recents(home, tongue)}

    def desk_models(_asked: Nothing, tongue: str) -> dict[str, Any]:
        """The base models there are."""
        return {"models": base_models(home, tongue)}

    def desk_images(asked: Folder, tongue: str) -> dict[str, str]:
        """Thumbnails of the folder, how many images and captions, what is wrong, and its name if it can be renamed."""
        if not asked.images.strip():
            return {"html": ""}
        folder = user_path(asked.images)
        set_name = folder.name if is_set(home, folder) else ""
        return {"html": images_html(home, folder, asked.trigger_word, tongue), "set": set_name}

    def desk_folders(asked: Where, tongue: str) -> FoldersData:
        """The folders of this computer to choose from."""
        return folders_in(asked.path, home, say(tongue, "desk.sets"))

    def desk_hub(asked: Model, tongue: str) -> dict[str, str]:
        """What the hub says of a model that is not downloaded yet: only who leaves the field asks it."""
        return {"line": asked_of_hub(asked.base_model, tongue)}

    return [
        answer(Opened, desk_open),
        answer(Seen, desk_news),
        answer(Nothing, desk_recent),
        answer(Nothing, desk_models),
        answer(Folder, desk_images),
        answer(Where, desk_folders),
        answer(Model, desk_hub),
    ]


def place(part: str, elem_id: str | None = None) -> gr.HTML:
    """Where the desk's script puts a part."""
    return gr.HTML(f'<div class="desk-{part}"></div>', apply_default_css=False, padding=False, elem_id=elem_id)


def build(home: Home) -> DeskElement:
    """The desk and the bar at the window's lower edge: what Train will do, and Train."""
    with gr.Row(elem_id="bar"):
        place("bar")
        start = gr.Button(label("train.start"), variant="primary", elem_id="start", size="lg", scale=0, min_width=120)
    problem = gr.HTML(elem_id="problem", apply_default_css=False)
    desk, leads = DeskElement("", elem_id="desk"), Leads("", elem_id="leads")
    desk.serve(answers(home))

    def begin(project: str) -> Any:  # noqa: ANN401 - updates
        """Train what the project says, now or after the queued runs."""
        found = Project.named(home, project) if project else None
        run = start_run(home, Desk.of(home, found).config())
        return {leads: f"/live?{urlencode({'run': run.path.name})}", problem: ""}

    act: Callable[..., Any] = reported(carded(problem, begin))
    start.click(act, desk, [leads, problem], js=FLUSH, **PRIVATE)
    return desk
