"""Faults put into a process's own file operations: killed at the k-th of them, or the disk full from there on.

The calls are met where Python makes them: opening, renaming, deleting by its audit events, writing and syncing by
functions of our own in place of `io.open`, `os.fsync` and the `FileIO` of event lines. A write is done by half before
the fault strikes.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from trainer.contract import files, ours

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
AUDITED = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}


@dataclass(frozen=True)
class Fault:
    """What happens to a trainer, and when."""

    kind: Literal["none", "kill", "full"] = "none"
    at: int = 0  # the how-manieth file operation, from 1
    among: str = ""  # counted are only those of this call and place, as "write\tcheckpoint"; empty: all
    step: int = 0  # or once this step has been told
    broken_writer: bool = False  # files are written under their final names, to show that this is noticed


def place(path: Path) -> str:
    """What is being saved by an operation on this file."""
    if "checkpoints" in path.parts:
        return "checkpoint"
    if "cache" in path.parts:
        return "cache"
    if path.name == "events.jsonl":
        return "event line"
    if path.name == ".reserve":
        return "room to tell why"
    if ".safetensors" in path.name:
        return "LoRA file"
    return "picture" if ".png" in path.name else "other file"


class Injector:
    """Counts the operations below a folder, and strikes at the one that was chosen."""

    def __init__(self, fault: Fault, root: Path, report: Path) -> None:
        self.fault, self.root, self.report = fault, root, report
        self.told: list[str] = []
        self.seen = 0
        self.full = False
        self.room = 0  # bytes that a full disk still takes, since something was deleted
        self._open, self._fsync = io.open, os.fsync

    def install(self) -> None:
        """From here on, in this process."""
        sys.addaudithook(self._audit)
        io.open = self._opened  # type: ignore[assignment]
        os.fsync = self._synced
        files.FileIO = ours.FileIO = partial(_Raw, injector=self)  # type: ignore[misc,assignment]
        if self.fault.broken_writer:
            files._write_whole = _write_in_place

    def finish(self) -> None:
        """Leave a list of the operations that there were."""
        with self._open(self.report, "w") as file:
            file.write("\n".join(self.told))

    def write(self, path: Path, data: bytes, write: Callable[[bytes], int]) -> int:
        """One write call: all of it, half of it before the end, or what a full disk takes."""
        if self._reached("write", path):
            if self.fault.kind == "kill":
                write(data[: len(data) // 2])
                self._die()
            self.full = True
            self.room += len(data) // 2
        if not self.full:
            done = write(data)
            if self.fault.step and b'"type":"step","step":%d,' % self.fault.step in data.replace(b" ", b""):
                self._die()
            return done
        taken = min(self.room, len(data))
        if taken == 0:
            raise _no_space()
        self.room -= taken
        return write(data[:taken])

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in AUDITED:
            return
        path = self._path(event, arguments)
        if path is None or not path.is_relative_to(self.root) or path == self.report:
            return
        if event == "os.remove" and self.full and path.is_file():
            self.room += path.stat().st_size
        makes = event == "os.mkdir" or (event == "open" and not path.exists())
        if self._reached(event, path):
            if self.fault.kind == "kill":
                self._die()
            if event not in ("os.remove", "os.rmdir"):
                self.full = True
                raise _no_space()
        elif self.full and makes and self.room == 0:
            raise _no_space()

    def _path(self, event: str, arguments: tuple[Any, ...]) -> Path | None:
        """The file that an operation is about; None if it changes nothing."""
        name = arguments[0]
        if isinstance(name, int) or name is None:
            return None if event == "open" else _path_of(name)
        if event == "open" and not arguments[2] & WRITING:
            return None
        folder = next((one for one in arguments[1:] if isinstance(one, int) and one >= 0), None)
        path = Path(os.fsdecode(name))
        return _path_of(folder) / path if event in ("os.remove", "os.rmdir") and folder is not None else path.absolute()

    def _reached(self, what: str, path: Path) -> bool:
        self.told.append(f"{what}\t{place(path)}")
        counts = self.fault.among in ("", self.told[-1])
        self.seen += counts
        return counts and self.seen == self.fault.at

    def _die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _opened(self, file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any) -> Any:
        """`io.open`, whose files tell of each write."""
        if "b" not in mode or not set(mode) & set("wax+"):
            return self._open(file, mode, buffering, *rest, **named)
        raw = _Raw(file, mode.replace("b", ""), injector=self)
        if buffering == 0:
            return raw
        return io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)

    def _synced(self, handle: int) -> None:
        path = _path_of(handle)
        if path.is_relative_to(self.root) and self._reached("fsync", path):
            if self.fault.kind == "kill":
                self._die()
            self.full = True
            raise _no_space()
        self._fsync(handle)


class _Raw(io.FileIO):
    """A file as the system has it, whose writes pass the injector."""

    def __init__(self, file: Any, mode: str, injector: Injector) -> None:
        super().__init__(file, mode)
        self._injector = injector

    def write(self, data: Any) -> int:
        path = _path_of(self.fileno())
        if not path.is_relative_to(self._injector.root):
            return super().write(data)
        return self._injector.write(path, bytes(data), super().write)


def _path_of(handle: int) -> Path:
    """The file behind a number."""
    if sys.platform == "darwin":
        import fcntl

        return Path(os.fsdecode(fcntl.fcntl(handle, 50, bytes(1024)).rstrip(b"\0")))  # F_GETPATH
    return Path(f"/proc/self/fd/{handle}").readlink()


def _no_space() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _write_in_place(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with io.open(path, "wb") as file:  # noqa: UP020 (the one that is ours)
        file.write(data)
