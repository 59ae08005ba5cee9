"""The folders of this computer to choose from: image sets, and within the user's own and on drives; nowhere else."""

from __future__ import annotations

import os
import string
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypedDict

from trainer.contract.home import Home
from trainer.dataset import formats
from trainer.projects.sets import all_sets

MOUNTS = ("/media", "/run/media", "/mnt", "/Volumes")
MOST = 500  # folders of one folder that are listed
COUNTED = 2000  # files of one folder that are looked at


class FolderData(TypedDict):
    """One folder, ready for JSON."""

    name: str
    path: str


class FoldersData(TypedDict):
    """A folder and what is in it, ready for JSON."""

    path: str  # empty: the list of where one may begin
    parent: str  # empty: that list
    folders: list[FolderData]
    images: int  # directly in it


def beginnings() -> list[Path]:
    """Where one may begin: the user's own folder, and drives."""
    drives = [Path(f"{letter}:\\") for letter in string.ascii_uppercase] if sys.platform == "win32" else list(_mounts())
    with suppress(RuntimeError):  # a service's user may have no folder
        drives.insert(0, Path.home())
    return [drive for drive in drives if _is_folder(drive)]


def folders_in(path: str, home: Home, sets_label: str) -> FoldersData:
    """Returns the folders in this one; the list of where one may begin for a path that lies in none of these.

    Args:
        path: The folder; empty for that list.
        home: Its image sets can be chosen too.
        sets_label: What their folder is called.
    """
    sets = [FolderData(name=one.name, path=str(one)) for one in all_sets(home)]
    begin = [*([home.sets] if sets else []), *beginnings()]
    try:
        here = Path(path).resolve() if path else None
        if here is None or not here.is_dir() or not _within(here, begin):
            here = None
    except (OSError, ValueError, RuntimeError):
        here = None
    if here is None:
        named = ((sets_label if one == home.sets else one.name or str(one), one) for one in begin)
        made = [FolderData(name=name, path=str(one)) for name, one in named]
        return {"path": "", "parent": "", "folders": made, "images": 0}
    if here == home.sets.resolve():  # beside the sets lie the edits of others
        return {"path": str(here), "parent": "", "folders": sets[:MOST], "images": 0}
    parent = str(here.parent) if here.parent != here and _within(here.parent, begin) else ""
    names, images = _look(here, begin)
    return {"path": str(here), "parent": parent, "folders": names, "images": images}


def _look(folder: Path, begin: list[Path]) -> tuple[list[FolderData], int]:
    found: list[FolderData] = []
    images = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for _, entry in zip(range(COUNTED), entries, strict=False):
            with suppress(OSError):
                if entry.name.startswith("."):
                    continue
                path = Path(entry.path)
                if entry.is_dir():
                    if not entry.is_symlink() or _within(path.resolve(), begin):
                        found.append({"name": entry.name, "path": entry.path})
                elif path.suffix.lower() in formats.SUFFIXES:
                    images += 1
    return sorted(found, key=lambda one: one["name"].casefold())[:MOST], images


def _mounts() -> Iterator[Path]:
    for mount in map(Path, MOUNTS):
        with suppress(OSError):
            for path in mount.iterdir():
                yield path
                if mount.name == "media":  # of which each user has a folder
                    with suppress(OSError):
                        yield from path.iterdir()


def _is_folder(path: Path) -> bool:
    with suppress(OSError):
        return path.is_dir()
    return False


def _within(path: Path, begin: list[Path]) -> bool:
    return any(path.is_relative_to(one.resolve()) for one in begin)
