"""Files written whole or not at all, or line by line; and cleaning up after interrupted writes."""

import errno
import os
import re
import shutil
import tempfile
import time
from contextlib import suppress
from io import FileIO
from pathlib import Path

import psutil

from trainer.contract.ours import open_plain
from trainer.contract.units import size

LONGEST_NAME = 255  # bytes, on every file system in use
FULL = (errno.ENOSPC, errno.EDQUOT)
LEFT_BEHIND = (".*.part", ".*.proof")  # temporary names, left by an interrupted write
WRITER = re.compile(r"\.(\d+)\.\w+\.part$")  # the process that writes it
A_WRITE_SECONDS = 3600  # a write that takes longer was interrupted


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` so that `path` has all of it or its earlier content, even after a power cut.

    Raises:
        OSError: As the system reports it, of a full disk with the bytes wanted; no partial file is left.
    """
    try:
        _write_whole(path, data)
    except OSError as error:
        if error.errno not in FULL:
            raise
        wanted = f"{path.name} takes {size(len(data))}, and {size(_free_bytes(path.parent))} are free"
        raise OSError(error.errno, wanted, str(path)) from error


def _write_whole(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.{os.getpid()}.", suffix=".part")
    fresh = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.chmod(0o644)  # mkstemp's 0600 would hide the file from a shared WebUI folder
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    sync_folder(path.parent)


def open_lines(path: Path) -> FileIO:
    """Opens the file for `add_line`; a last line that a crash truncated gets its end, so that it spoils no other.

    Raises:
        NotOurs: It is a link or no plain file.
    """
    file = open_plain(path, "a+b")
    file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
    if file.read() not in (b"", b"\n"):
        file.write(b"\n")
    return file


def add_line(file: FileIO, line: bytes) -> None:
    """Add the whole line or nothing, even on a full disk.

    Raises:
        OSError: As the system reports it.
    """
    end = file.seek(0, os.SEEK_END)
    rest = memoryview(line + b"\n")
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        file.truncate(end)
        raise


def append_line(path: Path, line: bytes) -> None:
    """Add a line to a file that is not open.

    Raises:
        OSError: As the system reports it.
    """
    with open_lines(path) as file:
        add_line(file, line)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable, where the system lets folders be synced."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _free_bytes(folder: Path) -> int:
    """What the disk that a folder lies on, or will lie on, has left."""
    return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free


def sweep(folder: Path, alone: bool = False) -> None:
    """Delete what interrupted writes left below a folder of ours, except what another process is writing.

    Args:
        folder: It, and all below it.
        alone: Only this process writes files there whose names do not say which process writes them.
    """
    for pattern in LEFT_BEHIND:
        for left in list(folder.rglob(pattern)):
            writer = WRITER.search(left.name)
            if left.is_symlink() or not (writer or alone):  # not what we write there
                continue
            given_up = alone if writer is None else _gone(int(writer[1]))
            with suppress(OSError):  # somebody else has deleted it
                if given_up or time.time() - left.stat().st_mtime > A_WRITE_SECONDS:
                    discard(left)


def _gone(writer: int) -> bool:
    """Whether that process writes no more: it has ended, or this one, which has just begun, got its number."""
    return writer == os.getpid() or not psutil.pid_exists(writer)


def discard(path: Path) -> None:
    """Delete a file or a folder; a folder loses its name first, so that nobody sees it half deleted."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    going = path if path.name.startswith(".") else path.with_name(f".{path.name}-old.part")
    if going != path:
        shutil.rmtree(going, ignore_errors=True)
        path.replace(going)
    shutil.rmtree(going, ignore_errors=True)
