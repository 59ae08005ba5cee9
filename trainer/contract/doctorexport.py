"""A mended data set as a folder of its own: what is trained of a picture folder, for any other program to read."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from trainer.contract.captions import Item, look
from trainer.contract.errors import DatasetError, FileExists
from trainer.contract.home import Home, atomic_write, sync_folder
from trainer.contract.overlay import Entry, entries_of, existing_overlay


def export(home: Home, folder: Path, target: Path, told: Callable[[int, int], None] | None = None) -> int:
    """Copy the pictures that are trained, byte for byte, each with its caption beside it; gives back how many.

    Captions are those of the overlay, or else the pictures' own, in UTF-8; what is left out is not there. The new
    folder appears whole or not at all.

    Args:
        home: Holds the overlay.
        folder: The picture folder, which stays as it is.
        target: The new folder; it must not be there yet, or be empty.
        told: Called with the pictures copied so far, and all.

    Raises:
        FileExists: There is something at `target`.
        DatasetError: The folder cannot be read, or `target` lies within it.
    """
    source, goal = folder.expanduser().resolve(), target.expanduser().resolve()
    if goal.is_relative_to(source):
        raise DatasetError(
            f"{goal} lies within the picture folder {source}, which is never written to.",
            hint="Choose a folder beside it.",
        )
    if goal.exists() and not (goal.is_dir() and not any(goal.iterdir())):
        raise FileExists(goal)
    entries = entries_of(home, source)
    items, _ = look(source, existing_overlay(home, source))
    trained = [item for item in items if not entries.get(item.name, Entry()).left_out]
    goal.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=goal.parent, prefix=f".{goal.name}.", suffix=".part") as made:
        fresh = Path(made) / goal.name
        fresh.mkdir()
        for number, item in enumerate(trained, start=1):
            _copy(item, fresh)
            if told:
                told(number, len(trained))
        if goal.exists():
            goal.rmdir()  # empty, or this fails and nothing is lost
        fresh.replace(goal)
    sync_folder(goal.parent)
    return len(trained)


def _copy(item: Item, folder: Path) -> None:
    """The picture, and beside it what it is trained with: its captions, a line each, and its mask."""
    target = folder / item.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(item.path, target)
    captions = [caption for caption in (item.caption, *item.others) if caption]
    if captions:
        atomic_write(target.with_suffix(".txt"), "\n".join(captions).encode())
    if item.mask is not None and item.mask.is_file():
        shutil.copy2(item.mask, target.with_suffix(".mask.png"))
