"""What the grid of the Dataset page shows of an image folder, and what its script asks of the server: plain data."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from pydantic import BaseModel, field_validator

from app.dataset.folder import CHOICES, Choice, ImageFolder
from app.kit.questions import Answer, answer
from app.kit.text import say, words
from app.server.files import thumbnail_url
from trainer.contract.home import Home, user_path
from trainer.dataset.bulk_edit import Edit, changed
from trainer.dataset.captions import Item
from trainer.dataset.encodings import plain
from trainer.dataset.errors import DatasetError
from trainer.dataset.overlay import Update, change, history, overlay_file, redo, undo

FIRST = 24  # cards that come with the names: more than a first screen shows
AT_ONCE = 200  # cards of one question
TAGS_SHOWN = 500
EXAMPLES = 5


class Asked(BaseModel):
    """What the script sends along with every question."""

    folder: str
    choice: Choice = "all"
    tags: tuple[str, ...] = ()
    text: str = ""
    among: tuple[str, ...] = ()  # only these, which a finding is about
    shown: tuple[str, ...] = ()  # images in view, whose cards come with the answer

    @field_validator("folder")
    @classmethod
    def _path(cls, folder: str) -> str:
        return str(user_path(folder))


class CardData(TypedDict):
    """One image."""

    name: str
    caption: str | None  # None: not read yet
    size: str
    thumb: str
    note: str  # empty, or that the caption was changed here and what it was before
    left_out: bool
    marks: str  # what else was changed: focus point, mask


class GridData(TypedDict, total=False):
    """What the grid shows, ready for JSON."""

    folder: str
    whole: bool  # False: names alone, because the folder is still being read
    summary: str
    counts: dict[Choice, int]
    cloud: list[tuple[str, int]]
    undo: str | None  # what would be undone; None: nothing
    redo: str | None
    cards: list[CardData]
    names: list[str]  # of the images chosen, in order; only when the choice was made
    words: dict[str, str]  # the reader's language; only when the page is opened
    presets: list[tuple[str, str]]  # label and name, with the words
    preset: str  # the one chosen at first
    captioners: list[Any]  # as `captioning.captioners` returns them
    status: str
    changed: list[str]  # images whose cards are no longer what they were
    focus: str  # the image to go to


class Preview(TypedDict):
    """What a change to many captions would do."""

    count: int
    of: int
    examples: list[tuple[str, str, str]]  # name, caption, and what it would be


def opened(images: ImageFolder, tongue: str) -> GridData:
    """Everything a page shows when it is opened, with the words that its script puts in."""
    names = images.chosen("all")
    data = grid_data(images, names[:FIRST], tongue)
    return {**data, "names": names, "words": words(tongue, "dataset.")}


def grid_data(images: ImageFolder, shown: Iterable[str], tongue: str) -> GridData:
    """Counts, tags and what can be undone, and the cards of the images `shown`."""
    past = history(images.home, images.folder)
    counts: dict[Choice, int] = {each: len(images.sets[each]) for each in CHOICES}
    return {
        "folder": str(images.folder),
        "whole": images.whole,
        "summary": say(
            tongue,
            "dataset.summary" if images.whole else "dataset.reading",
            images=counts["all"],
            captions=counts["all"] - counts["bare"],
            changed=counts["changed"],
            file=overlay_file(images.home, images.folder).parent,
        ),
        "counts": counts,
        "cloud": list(images.tags.items())[:TAGS_SHOWN],
        "undo": past.done[-1].what if past.done else None,
        "redo": past.undone[-1].what if past.undone else None,
        "cards": [_card(images, name, tongue) for name in list(shown)[:AT_ONCE] if name in images.sets["all"]],
    }


def _card(images: ImageFolder, name: str, tongue: str) -> CardData:
    item, entry, note = images.items.get(name), images.entry(name), ""
    path = images.folder / name
    if entry.text is not None and name in images.own:
        own = images.own[name].caption
        note = say(tongue, "dataset.was", caption=own) if own else say(tongue, "dataset.was_bare")
    marks = [say(tongue, f"dataset.has_{what}") for what in ("focus", "mask") if getattr(item or entry, what)]
    return {
        "name": name,
        "caption": item.caption if item else None,
        "size": f"{item.width} × {item.height} px" if item else "",
        "thumb": thumbnail_url(path),
        "note": note,
        "left_out": entry.left_out,
        "marks": " · ".join(marks),
    }


class Saved(Asked):
    """A caption to be kept."""

    name: str
    caption: str


class Chosen(Asked):
    """Images to be changed."""

    names: tuple[str, ...]  # as the user saw them: what else fits the choice by now is not meant

    def of(self, images: ImageFolder) -> list[str]:
        """Those that are still there, in order."""
        return [name for name in self.names if name in images.own]


class Bulk(Chosen):
    """One change to many captions."""

    edit: Edit


class Left(Chosen):
    """Whether images are trained."""

    left_out: bool


def answers(home: Home) -> list[Answer]:
    """The functions that the grid's script calls, by their names."""
    return [*_looking(home), *_changing(home)]


def _looking(home: Home) -> list[Answer]:

    def show(asked: Asked, tongue: str) -> GridData:
        """Show another choice of images, or refresh it."""
        images = ImageFolder.of(home, asked.folder)
        names = images.chosen(asked.choice, asked.tags, asked.text, asked.among)
        return {**grid_data(images, asked.shown or names[:FIRST], tongue), "names": names}

    def cards(asked: Asked, tongue: str) -> GridData:
        """The cards of the images that came into view, and nothing else."""
        images = ImageFolder.of(home, asked.folder, read=False, again=False)
        known = set(images.names)
        return {"cards": [_card(images, name, tongue) for name in asked.shown[:AT_ONCE] if name in known]}

    def bulk_preview(asked: Bulk, _tongue: str) -> Preview:
        """What the change would change, without changing it."""
        images = ImageFolder.of(home, asked.folder, again=False)
        names = asked.of(images)
        fresh = changed({name: images.captions[name] for name in names}, asked.edit)
        first = list(fresh.items())[:EXAMPLES]
        return {
            "count": len(fresh),
            "of": len(names),
            "examples": [(name, images.captions[name], caption) for name, caption in first],
        }

    return [answer(Asked, show), answer(Asked, cards), answer(Bulk, bulk_preview)]


def _changing(home: Home) -> list[Answer]:
    def save(asked: Saved, tongue: str) -> GridData:
        """One caption changed."""
        images = ImageFolder.of(home, asked.folder, only=[asked.name])
        fresh = with_captions(images, {asked.name: asked.caption})
        return made(home, asked, fresh, say(tongue, "dataset.did.caption", name=asked.name), tongue)

    def bulk(asked: Bulk, tongue: str) -> GridData:
        """The change made."""
        images = ImageFolder.of(home, asked.folder, only=asked.names)
        fresh = changed({name: images.captions[name] for name in asked.of(images)}, asked.edit)
        what = say(tongue, f"dataset.did.{asked.edit.kind}", find=asked.edit.find, put=asked.edit.put)
        return made(home, asked, with_captions(images, fresh), what, tongue)

    def leave_out(asked: Left, tongue: str) -> GridData:
        """Exclude images from training, or include them again."""
        images = ImageFolder.of(home, asked.folder, only=asked.names)
        names = asked.of(images)
        fresh = dict.fromkeys(names, partial(replace, left_out=asked.left_out))
        what = say(tongue, f"dataset.did.{'leave_out' if asked.left_out else 'take_in'}", count=len(names))
        return made(home, asked, fresh, what, tongue)

    def take_back(asked: Asked, tongue: str) -> GridData:
        """The last change undone."""
        return _step(home, asked, tongue, "undo")

    def do_again(asked: Asked, tongue: str) -> GridData:
        """The change made again that was undone last."""
        return _step(home, asked, tongue, "redo")

    return [
        answer(Saved, save),
        answer(Bulk, bulk),
        answer(Left, leave_out),
        answer(Asked, take_back),
        answer(Asked, do_again),
    ]


def with_captions(images: ImageFolder, captions: dict[str, str]) -> dict[str, Update]:
    """What gives images these captions; its own one once more needs no entry.

    Raises:
        DatasetError: An image that is not there, or no longer.
    """
    fresh: dict[str, Update] = {}
    for name, caption in captions.items():
        text, own = plain(caption), item_of(images, name, images.own).caption
        fresh[name] = partial(replace, text=None if text == own else text)
    return fresh


def made(home: Home, asked: Asked, fresh: Mapping[str, Update], what: str, tongue: str) -> GridData:
    """Make one change that can be undone; returns what the page shows then.

    Raises:
        TrainerError: It cannot be made.
    """
    change(home, Path(asked.folder), fresh, what)
    return _after(home, asked, list(fresh), say(tongue, "dataset.did", what=what, count=len(fresh)), tongue)


def _step(home: Home, asked: Asked, tongue: str, way: str) -> GridData:
    step = (undo if way == "undo" else redo)(home, user_path(asked.folder).absolute())
    if step is None:
        return {"status": say(tongue, f"dataset.no_{way}")}
    names = step.names
    ImageFolder.of(home, asked.folder, only=names)
    status = say(tongue, f"dataset.{way}ne", what=step.what or ", ".join(names), count=len(names))
    return {**_after(home, asked, names, status, tongue), "focus": names[0] if len(names) == 1 else ""}


def _after(home: Home, asked: Asked, names: list[str], status: str, tongue: str) -> GridData:
    """What the page shows after a change: what is in view keeps its place under the hand.

    The change was made to the folder as it was just looked at, so it is not gone through again.
    """
    images = ImageFolder.of(home, asked.folder, again=False)
    return {**grid_data(images, asked.shown, tongue), "changed": names, "status": status}


def item_of(images: ImageFolder, name: str, items: dict[str, Item] | None = None) -> Item:
    """The image of this name, with what was changed about it; or as it is among other `items`.

    Raises:
        DatasetError: There is none.
    """
    found = (images.items if items is None else items).get(name)
    if found is None or not found.path.is_file():
        raise DatasetError(f"There is no image {name!r} in {images.folder}.", hint="Open the folder again.")
    return found
