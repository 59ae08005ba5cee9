"""What the caption grid shows of a picture folder, as plain data, and the three things it asks of the server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, TypedDict, get_args
from urllib.parse import urlencode

import gradio as gr
from pydantic import BaseModel

from app.files import thumbnail_url
from app.text import language, say
from trainer.contract.captions import Item, Problem, look
from trainer.contract.errors import TrainerError
from trainer.contract.home import Home
from trainer.contract.overlay import (
    caption_beside,
    existing_overlay,
    history,
    overlay_file,
    read_overlay,
    undo,
    write_caption,
)

AT_ONCE = 60  # pictures shown together: what a first look may have to make thumbnails of
PROBLEMS_SHOWN = 8

Choice = Literal["all", "bare", "changed", "problems"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
WORDS = ("undo", "earlier", "later", "train", "keys", "unsaved", "waiting", "offline", "choose", "pages")


class Asked(BaseModel):
    """What the page sends along with every question."""

    folder: str
    choice: Choice = "all"
    after: str = ""  # show those that follow this picture
    before: str = ""  # or those ahead of it
    shown: tuple[str, ...] = ()  # what stands on the page and is to stay there
    name: str = ""  # the picture whose caption is saved
    text: str = ""


class CardData(TypedDict):
    """One picture."""

    name: str
    caption: str
    size: str
    thumb: str
    label: str
    note: str  # empty, or that the caption was changed here and what it was before


class GridData(TypedDict):
    """Everything the grid shows, ready for JSON; the words come along because each reader may have another language."""

    folder: str
    choice: Choice
    choices: list[tuple[Choice, str]]
    summary: str
    problems: list[str]
    cards: list[CardData]
    place: str  # "1–60 of 200"
    earlier: bool
    later: bool
    undoable: bool
    empty: str
    train: str
    status: str
    focus: str  # the picture to go to, or nothing
    words: dict[str, str]


@dataclass(frozen=True)
class Pictures:
    """A picture folder as it is now."""

    home: Home
    folder: Path
    items: dict[str, Item]  # by path relative to the folder, in order
    problems: list[Problem]
    edited: dict[str, str]  # captions changed here

    @classmethod
    def of(cls, home: Home, folder: str) -> Self:
        """The folder that the user wrote.

        Raises:
            DatasetError: It cannot be shown.
        """
        path = Path(folder.strip()).expanduser().absolute()
        overlay = existing_overlay(home, path)
        found, problems = look(path, overlay)
        items = {item.path.relative_to(path).as_posix(): item for item in found}
        edited = read_overlay(overlay) if overlay else {}
        return cls(home, path, items, problems, {name: text for name, text in edited.items() if name in items})

    @cached_property
    def sets(self) -> dict[Choice, set[str]]:
        """The pictures that each choice shows."""
        troubled = {path for problem in self.problems for path in problem.pictures}
        return {
            "all": set(self.items),
            "bare": {name for name, item in self.items.items() if not item.caption},
            "changed": set(self.edited),
            "problems": {name for name, item in self.items.items() if item.path in troubled},
        }

    def page(self, choice: Choice, after: str = "", before: str = "") -> list[str]:
        """The chosen pictures that follow `after`, come ahead of `before`, or else the first; `AT_ONCE` at most.

        A page goes on from a picture and not from a number, because captions saved meanwhile may have left the choice.
        """
        wanted = self.sets[choice]
        names = list(self.items)
        if before in self.items:
            return [name for name in names[: names.index(before)] if name in wanted][-AT_ONCE:]
        start = names.index(after) + 1 if after in self.items else 0
        return [name for name in names[start:] if name in wanted][:AT_ONCE]

    def beyond(self, shown: list[str], choice: Choice) -> tuple[int, int]:
        """How many chosen pictures come before those shown, and how many after."""
        if not shown:
            return 0, 0
        names = list(self.items)
        first, last = names.index(shown[0]), names.index(shown[-1])
        wanted = self.sets[choice]
        return sum(name in wanted for name in names[:first]), sum(name in wanted for name in names[last + 1 :])


def grid_data(
    pictures: Pictures, shown: list[str], choice: Choice, tongue: str, *, status: str = "", focus: str = ""
) -> GridData:
    """What the grid shows when these pictures of the folder stand on the page."""
    earlier, later = pictures.beyond(shown, choice)
    counts = {each: len(pictures.sets[each]) for each in CHOICES}
    total = counts["all"]
    return {
        "folder": str(pictures.folder),
        "choice": choice,
        "choices": [(each, say(tongue, f"dataset.{each}", count=counts[each])) for each in CHOICES],
        "summary": say(
            tongue,
            "dataset.summary",
            pictures=total,
            captions=total - counts["bare"],
            changed=counts["changed"],
            file=overlay_file(pictures.home, pictures.folder),
        ),
        "problems": _problems(pictures.problems, tongue),
        "cards": [_card(pictures, name, tongue) for name in shown],
        "place": say(
            tongue, "dataset.place", first=earlier + 1, last=earlier + len(shown), total=earlier + len(shown) + later
        ),
        "earlier": earlier > 0,
        "later": later > 0,
        "undoable": bool(history(pictures.home, pictures.folder)),
        "empty": "" if shown else say(tongue, f"dataset.empty.{choice}"),
        "train": f"/?{urlencode({'images': str(pictures.folder)})}",
        "status": status,
        "focus": focus,
        "words": {word: say(tongue, f"dataset.{word}") for word in WORDS},
    }


def _card(pictures: Pictures, name: str, tongue: str) -> CardData:
    item = pictures.items[name]
    note = ""
    if name in pictures.edited:
        own, _ = caption_beside(item.path)
        note = say(tongue, "dataset.was", caption=own) if own else say(tongue, "dataset.was_bare")
    return {
        "name": name,
        "caption": item.caption,
        "size": f"{item.width} × {item.height} px",
        "thumb": thumbnail_url(pictures.home, item.path),
        "label": say(tongue, "dataset.caption_of", name=name),
        "note": note,
    }


def _problems(problems: list[Problem], tongue: str) -> list[str]:
    """The first few in words, and how many more there are."""
    lines = [f"{problem.message} {problem.hint}" for problem in problems[:PROBLEMS_SHOWN]]
    more = len(problems) - len(lines)
    return [*lines, say(tongue, "dataset.more_problems", count=more)] if more else lines


Answer = Callable[[dict[str, Any], gr.Request], GridData | dict[str, str]]


def answers(home: Home) -> dict[str, Answer]:
    """The functions that the grid's script calls, by name; each answers what is shown then, or {"error": …}."""

    def show(question: dict[str, Any], request: gr.Request) -> GridData | dict[str, str]:
        """Another choice, or other pictures of it."""
        asked = Asked.model_validate(question)
        try:
            pictures = Pictures.of(home, asked.folder)
        except TrainerError as error:
            return _failed(error)
        shown = pictures.page(asked.choice, asked.after, asked.before)
        return grid_data(pictures, shown, asked.choice, language(request), focus=_first(shown, asked))

    def save(question: dict[str, Any], request: gr.Request) -> GridData | dict[str, str]:
        """One caption changed."""
        asked = Asked.model_validate(question)
        try:
            write_caption(home, Path(asked.folder), asked.name, asked.text)
            return _same_page(home, asked, request, "dataset.saved", [asked.name])
        except TrainerError as error:
            return _failed(error)

    def take_back(question: dict[str, Any], request: gr.Request) -> GridData | dict[str, str]:
        """The last change undone."""
        asked = Asked.model_validate(question)
        try:
            names = undo(home, Path(asked.folder))
            key = "dataset.undone" if names else "dataset.nothing_to_undo"
            return _same_page(home, asked, request, key, names, focus=True)
        except TrainerError as error:
            return _failed(error)

    return {"show": show, "save": save, "take_back": take_back}


def _first(shown: list[str], asked: Asked) -> str:
    """The picture to go to after the page was turned."""
    return shown[0] if shown and (asked.after or asked.before) else ""


def _same_page(
    home: Home, asked: Asked, request: gr.Request, key: str, names: list[str], *, focus: bool = False
) -> GridData:
    """What stood on the page, as it is now: a caption just written does not leave its place under the hand."""
    pictures = Pictures.of(home, asked.folder)
    shown = [name for name in asked.shown if name in pictures.items]
    tongue = language(request)
    status = say(tongue, key, names=", ".join(names))
    going = next((name for name in names if name in shown), "") if focus else ""
    return grid_data(pictures, shown, asked.choice, tongue, status=status, focus=going)


def _failed(error: TrainerError) -> dict[str, str]:
    return {"error": f"{error.message} {error.hint}"}
