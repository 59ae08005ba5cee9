"""The program's own folders (home, runs, checkpoints, cache, overlays): nothing in them may lead elsewhere.

A link there would have us write to, shorten or delete a file of somebody else's; a pipe or device would never answer.
The home's folders `runs`, `cache`, `datasets`, `presets`, `projects` and `thumbnails` may be links, to another disk for
example.
"""

import os
import stat
from collections.abc import Iterator
from io import FileIO
from pathlib import Path, PurePath

from trainer.contract.errors import TrainerError
from trainer.contract.units import size

KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
}
SHARED = "a file with a second name (a hard link)"
LEADS_AWAY = (0xA000000C, 0xA0000003)  # Windows' symbolic links and junctions, by their reparse tag
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
MOST_BYTES = 16 << 20  # of a file that is read whole: settings, states, requests
DEEPEST = 3  # folders in a run's folder: checkpoints/000100


class NotOurs(TrainerError, OSError):
    """An entry of one of the program's own folders is no plain file or folder; an OSError, for who expects none."""

    code = "not_ours"
    what = "{path} is {kind}, and should be {wanted}: it could lead to files that are not this program's."
    remedy = "Nothing was changed. Move it out of the folder, or put a copy in its place."


class FileTooLarge(TrainerError, OSError):
    """A file in one of the program's own folders is larger than any that it writes, and is not read."""

    code = "file_too_large"
    what = "{path} holds {seen}, and a file of this name has at most {most}: it is damaged."
    remedy = "Nothing was changed. Move it out of the folder, or put a copy in its place."


def open_plain(path: Path, mode: str = "rb", most: int | None = None) -> FileIO:
    """Returns the file, unbuffered, opened without following a link and without waiting for a pipe.

    Args:
        path: A file in a folder of ours.
        mode: "rb" to read, "a+b" to add to it and read; the latter creates it.
        most: Bytes it may have, for who reads all of it.

    Raises:
        NotOurs: It is no plain file; or, to be added to, has a second name elsewhere (a hard link).
        FileTooLarge: It has more.
        FileNotFoundError: To be read, and not there.
    """
    writes = mode != "rb"
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND if writes else os.O_RDONLY
    check(path)  # before: opening a device or pipe can have effects
    try:
        handle = os.open(path, flags | NO_FOLLOW, 0o644)
    except OSError:
        check(path)  # it was put there meanwhile
        raise
    file = FileIO(handle, "a+" if writes else "r")
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or (writes and found.st_nlink > 1):
        file.close()
        raise NotOurs(path=path, kind=SHARED if stat.S_ISREG(found.st_mode) else _kind(found), wanted="a plain file")
    if most is not None and found.st_size > most:
        file.close()
        raise FileTooLarge(path=path, seen=size(found.st_size), most=size(most))
    return file


def read_plain(path: Path, most: int = MOST_BYTES) -> bytes:
    """Returns the content of a file in a folder of ours, of at most so many bytes.

    Raises:
        NotOurs: It is no plain file.
        FileTooLarge: It has more.
        FileNotFoundError: It is not there.
    """
    with open_plain(path, most=most) as file:
        return file.read()


def check(path: Path, folder: bool = False, changed: bool = False) -> None:
    """Refuse an entry that is there and is no plain file, or no plain folder.

    Args:
        path: The entry; what leads to it is not looked at.
        folder: It should be a folder.
        changed: The file will be changed in place, as a lock or log is, so it may not have a second name elsewhere.

    Raises:
        NotOurs: It is something else.
    """
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    if _kind(found) != KINDS[stat.S_IFDIR if folder else stat.S_IFREG]:
        raise NotOurs(path=path, kind=_kind(found), wanted="a plain folder" if folder else "a plain file")
    if changed and found.st_nlink > 1:
        raise NotOurs(path=path, kind=SHARED, wanted="a plain file")


def check_below(folder: Path, relative: PurePath) -> None:
    """Refuse a file of one of our folders if it, or a folder on the way to it, is nothing plain.

    Raises:
        NotOurs: The first that is something else.
    """
    for parent in [*relative.parents][-2::-1]:  # the last is the folder itself, which may be reached by a link
        check(folder / parent, folder=True)
    if relative.parts:  # else it is the folder itself
        check(folder / relative)


def check_all(folder: Path, deepest: int = DEEPEST) -> None:
    """Refuse a folder of ours of which any entry leads elsewhere, before anything in it is written or deleted.

    Args:
        folder: It may be reached by a link itself; its entries may not.
        deepest: How many levels below it are looked at.

    Raises:
        NotOurs: The first entry that is neither a plain file nor a plain folder.
    """
    for entry, found in _entries(folder, deepest):
        if _kind(found) not in (KINDS[stat.S_IFDIR], KINDS[stat.S_IFREG]):
            raise NotOurs(path=entry, kind=_kind(found), wanted="a plain file or folder")


def _entries(folder: Path, deepest: int) -> Iterator[tuple[Path, os.stat_result]]:
    """What lies in a folder and in its folders, no link followed."""
    try:
        paths = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    for path in paths:
        try:
            found = os.lstat(path)
        except FileNotFoundError:  # deleted meanwhile
            continue
        yield path, found
        if deepest > 1 and _kind(found) == KINDS[stat.S_IFDIR]:
            yield from _entries(path, deepest - 1)


def _kind(found: os.stat_result) -> str:
    """What an entry is, in words."""
    if getattr(found, "st_reparse_tag", 0) in LEADS_AWAY:
        return KINDS[stat.S_IFLNK]
    return KINDS.get(stat.S_IFMT(found.st_mode), "no file")
