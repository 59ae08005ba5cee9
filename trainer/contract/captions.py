"""A folder of pictures as a list of items with captions, and what is wrong with it. Nothing is ever written there."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from trainer.contract.errors import FolderMissing, NoImages, UnreadableImage

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


def scan(folder: Path) -> tuple[list[Item], list[Problem]]:
    """All pictures below `folder`, ordered by path, and what was noticed.

    A caption is the .txt (or .caption) file of the same name; hidden files and folders are passed over.

    Raises:
        FolderMissing: No such folder.
        NoImages: Nothing to train on.
        UnreadableImage: A picture that cannot be opened.
    """
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
    problems: list[Problem] = []
    items = [_item(path, problems.append) for path in pictures]
    bare = [item.path.name for item in items if not item.caption]
    if bare:
        problems.append(
            Problem(
                "no_caption",
                f"{len(bare)} of {len(items)} pictures have no caption (first: {bare[0]}).",
                "They are trained on the trigger word alone; a .txt file of the same name is a picture's caption.",
            )
        )
    return items, problems


def _item(path: Path, note: Callable[[Problem], None]) -> Item:
    """One picture's entry, read from its header only."""
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            if picture.getexif().get(ORIENTATION_TAG) in SIDEWAYS:
                width, height = height, width
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise UnreadableImage(path, str(error)) from None
    return Item(path, _caption(path, note), width, height)


def _caption(picture: Path, note: Callable[[Problem], None]) -> str:
    """The picture's caption on one line, or an empty string."""
    for suffix in (".txt", ".caption"):
        file = picture.with_suffix(suffix)
        if file.is_file():
            data = file.read_bytes()
            try:
                text = data.decode("utf-8-sig")
            except UnicodeDecodeError:
                text = data.decode("cp1252", errors="replace")
                note(
                    Problem(
                        "caption_encoding",
                        f"{file.name} is not UTF-8; it was read as Windows-1252.",
                        "Check its accents, and save it as UTF-8.",
                    )
                )
            return " ".join(text.split())
    return ""


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
