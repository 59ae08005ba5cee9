"""A folder of pictures as a list of items with captions, and what is wrong with it. Nothing is ever written there."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from trainer.contract.errors import FolderMissing, NoImages, UnreadableImage
from trainer.contract.overlay import caption_beside, read_overlay
from trainer.contract.settings import DatasetSettings

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
ORIENTATION_TAG = 0x0112
CAPTION_VARIANTS = 16  # shuffled forms of one caption that occur in a run; few enough to be encoded once


@dataclass(frozen=True)
class Item:
    """One picture: its file, its caption, and its size in px as a viewer shows it."""

    path: Path
    caption: str
    width: int
    height: int


@dataclass(frozen=True)
class Problem:
    """Something about a data set worth knowing; training can go on."""

    code: str
    message: str
    hint: str
    pictures: tuple[Path, ...] = ()  # those it is about


def pictures_of(settings: DatasetSettings) -> tuple[list[Item], list[Problem]]:
    """What `scan` finds for these settings."""
    return scan(Path(settings.images), Path(settings.captions) if settings.captions else None)


def scan(folder: Path, captions: Path | None = None) -> tuple[list[Item], list[Problem]]:
    """All pictures below `folder`, ordered by path, and what was noticed.

    A caption is the picture's entry in the file `captions`, else the .txt (or .caption) file of the same name; hidden
    files and folders are passed over.

    Raises:
        FolderMissing: No such folder.
        NoImages: Nothing to train on.
        UnreadableImage: A picture that cannot be opened.
        DatasetError: The file `captions` cannot be read.
    """
    items, problems, broken = _survey(folder, captions)
    if broken:
        raise broken[0]
    return items, problems


def look(folder: Path, captions: Path | None = None) -> tuple[list[Item], list[Problem]]:
    """The same for someone who looks on: a picture that cannot be opened is a problem and left out.

    Raises:
        FolderMissing: No such folder.
        NoImages: No pictures.
        DatasetError: The file `captions` cannot be read.
    """
    items, problems, broken = _survey(folder, captions)
    return items, [Problem(error.code, error.message, error.hint) for error in broken] + problems


def _survey(folder: Path, captions: Path | None) -> tuple[list[Item], list[Problem], list[UnreadableImage]]:
    """The pictures that can be opened, what was noticed, and those that cannot."""
    pictures = _pictures(folder)
    entries = read_overlay(captions) if captions is not None else {}
    names = {path: path.relative_to(folder).as_posix() for path in pictures}
    items: list[Item] = []
    problems: list[Problem] = []
    broken: list[UnreadableImage] = []
    for path, name in names.items():
        try:
            width, height = _size(path)
        except UnreadableImage as error:
            broken.append(error)
            continue
        caption = entries[name] if name in entries else _caption(path, problems.append)
        items.append(Item(path, caption, width, height))
    bare = tuple(item.path for item in items if not item.caption)
    if bare:
        problems.append(
            Problem(
                "no_caption",
                f"{len(bare)} of {len(items)} pictures have no caption (first: {bare[0].name}).",
                "They are trained on the trigger word alone; a .txt file of the same name is a picture's caption.",
                bare,
            )
        )
    gone = sorted(entries.keys() - set(names.values()))
    if gone:
        problems.append(
            Problem(
                "caption_without_picture",
                f"{captions} has {len(gone)} captions for pictures that are not in {folder} (first: {gone[0]}).",
                "They are not used; check whether pictures were renamed or moved.",
            )
        )
    return items, problems, broken


def _pictures(folder: Path) -> list[Path]:
    """Every file below `folder` that is named like a picture."""
    if not folder.is_dir():
        raise FolderMissing(folder)
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    pictures = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not pictures:
        raise NoImages(folder, len(files))
    return pictures


def _size(path: Path) -> tuple[int, int]:
    """A picture's width and height in px."""
    try:
        seen = path.stat()
        return _size_of_version(path, seen.st_mtime_ns, seen.st_size)
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise UnreadableImage(path, str(error)) from None


@lru_cache(maxsize=10_000)  # a page looks at its folder again after every change
def _size_of_version(path: Path, _changed: int, _bytes: int) -> tuple[int, int]:
    """The same, read from the file's header only."""
    with Image.open(path) as picture:
        width, height = picture.size
        sideways = picture.getexif().get(ORIENTATION_TAG) in SIDEWAYS
    return (height, width) if sideways else (width, height)


def _caption(picture: Path, note: Callable[[Problem], None]) -> str:
    """The caption beside the picture, or an empty string."""
    text, guessed = caption_beside(picture)
    if guessed is not None:
        note(
            Problem(
                "caption_encoding",
                f"{guessed.name} is not UTF-8; it was read as Windows-1252.",
                "Check its accents, and save it as UTF-8.",
                (picture,),
            )
        )
    return text


def with_trigger(caption: str, trigger_word: str) -> str:
    """The caption with the trigger word first, once."""
    if not trigger_word or caption == trigger_word or caption.startswith((f"{trigger_word} ", f"{trigger_word},")):
        return caption
    others = [tag for tag in (part.strip() for part in caption.split(",")) if tag and tag != trigger_word]
    return ", ".join([trigger_word, *others])


def shuffled(caption: str, keep_tags: int, seed: int) -> str:
    """The caption's comma-separated tags in an order drawn from `seed`, the first `keep_tags` left in place."""
    tags = [tag.strip() for tag in caption.split(",") if tag.strip()]
    tail = tags[keep_tags:]
    random.Random(seed).shuffle(tail)
    return ", ".join(tags[:keep_tags] + tail)


def tag_frequency(captions: list[str]) -> dict[str, int]:
    """How often each comma-separated tag occurs, most frequent first."""
    counts: dict[str, int] = {}
    for caption in captions:
        for tag in (part.strip().lower() for part in caption.split(",")):
            if tag:
                counts[tag] = counts.get(tag, 0) + 1
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))
