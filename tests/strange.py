"""What may lie where a plain file or folder of ours should be: links, pipes, sockets."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

KINDS = ("link to a file", "link to a folder", "dangling link", "pipe", "socket")
# What lies in a run's folder
IN_A_RUN = (
    ".reserve", "log.txt", "events.jsonl", "process.json", ".lock", "control", "control/stop", "checkpoints", "samples",
    "samples/000000-0.png", "checkpoints/000001", "checkpoints/000001/state.json",
)  # fmt: skip


def somebodys(folder: Path) -> Path:
    """Fill a folder of somebody else's, with files that are called as ours are."""
    for name in ("letter.txt", "000001/state.json", "000002/a.txt", "state.json", "stop", "000000-0.png", "a.entry"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"mine: {name}")
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    """All files below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def place(path: Path, kind: str, theirs: Path) -> None:
    """Put something strange at this path, leading to somebody else's folder if it is a link."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        path.rmdir()
    elif path.exists():
        path.unlink()
    if kind == "link to a file":
        path.symlink_to(theirs / "letter.txt")
    elif kind == "link to a folder":
        path.symlink_to(theirs)
    elif kind == "dangling link":
        path.symlink_to(theirs / "not there")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "hard link":
        path.hardlink_to(theirs / "letter.txt")
    else:
        with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as one:  # a socket's name must be short
            one.bind(path.name)
