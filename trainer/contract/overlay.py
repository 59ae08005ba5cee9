"""Captions edited here, kept beside the pictures in spirit only: the user's folder is read and never written to.

Each folder of pictures has one in the home, `datasets/<name>-<8 hex>/metadata.jsonl`, in the format of Hugging Face
datasets: one `{"file_name": "relative/path.png", "text": "caption"}` a line. Beside it `history.jsonl` keeps every
change, to be undone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock

from trainer.contract.errors import DatasetError
from trainer.contract.home import Home, atomic_write

READABLE = 60  # letters of the folder's own name in that of its overlay

Entries = dict[str, str]  # caption by the picture's path, relative to its folder and with forward slashes
Before = dict[str, str | None]  # what a change replaced; None: there was no entry


def overlay_file(home: Home, folder: Path) -> Path:
    """Where the edited captions of this picture folder lie; the file is there once something was edited."""
    path = folder.expanduser().resolve()
    name = re.sub(r"[^\w.-]+", "-", path.name)[:READABLE].strip("-.") or "pictures"
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    return home.root / "datasets" / f"{name}-{digest}" / "metadata.jsonl"


def existing_overlay(home: Home, folder: Path) -> Path | None:
    """The same, if it is there."""
    path = overlay_file(home, folder)
    return path if path.is_file() else None


def read_overlay(path: Path) -> Entries:
    """The captions in a metadata.jsonl, each on one line; an empty one says that the picture has none.

    Raises:
        DatasetError: Not there, not UTF-8, or a line that is no such entry.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # a caption may hold other separators of lines
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"The captions {path} cannot be read: {error}.",
            hint="Give a metadata.jsonl in UTF-8, or leave dataset.captions empty.",
        ) from None
    return dict(_entry(path, number, line) for number, line in enumerate(lines, start=1) if line.strip())


def caption_beside(picture: Path) -> tuple[str, Path | None]:
    """The picture's own caption on one line, and its file if that is not UTF-8 and was read as Windows-1252."""
    for suffix in (".txt", ".caption"):
        file = picture.with_suffix(suffix)
        if file.is_file():
            data = file.read_bytes()
            try:
                return one_line(data.decode("utf-8-sig")), None
            except UnicodeDecodeError:
                return one_line(data.decode("cp1252", errors="replace")), file
    return "", None


def one_line(text: str) -> str:
    """The text with every run of blanks and line ends as one blank."""
    return " ".join(text.split())


def write_caption(home: Home, folder: Path, name: str, text: str) -> None:
    """`write_captions` for one picture."""
    write_captions(home, folder, {name: text})


def write_captions(home: Home, folder: Path, captions: Mapping[str, str]) -> None:
    """Give pictures other captions, as one change that `undo` takes back; their own one again removes the entry.

    Args:
        home: Where the overlay lies.
        folder: The picture folder.
        captions: By the picture's path, relative to the folder and with forward slashes.

    Raises:
        DatasetError: A name that is no file of the folder, or an overlay that cannot be read.
    """
    fresh: Before = {}
    for name, text in captions.items():
        own, _ = caption_beside(_inside(folder, name))
        caption = one_line(text)
        fresh[name] = None if caption == own else caption
    with _changing(home, folder) as entries:
        before = {name: entries.get(name) for name, text in fresh.items() if entries.get(name) != text}
        if before:
            _note(history_file(home, folder), {"before": before})
            _put(entries, fresh)


def undo(home: Home, folder: Path) -> list[str]:
    """Take the last change back; gives back the names of its pictures, none if there is nothing left to undo.

    Raises:
        DatasetError: The overlay cannot be read.
    """
    with _changing(home, folder) as entries:
        changes = history(home, folder)
        if not changes:
            return []
        _note(history_file(home, folder), {"undone": True})
        _put(entries, changes[-1])
        return list(changes[-1])


def history(home: Home, folder: Path) -> list[Before]:
    """What each change that stands replaced, oldest first; a line that a crash cut short is passed over."""
    try:
        lines = history_file(home, folder).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    changes: list[Before] = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if "before" in record:
            changes.append(record["before"])
        elif changes:
            changes.pop()
    return changes


def history_file(home: Home, folder: Path) -> Path:
    """Every change and every undoing of one, a line each; only ever added to."""
    return overlay_file(home, folder).with_name("history.jsonl")


def _entry(path: Path, number: int, line: str) -> tuple[str, str]:
    """Picture and caption of one line."""
    try:
        entry = json.loads(line)
        return str(PurePosixPath(_text(entry, "file_name"))), one_line(_text(entry, "text"))
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"Line {number} of {path} is no caption: {type(error).__name__}: {error}.",
            hint='Each line must read {"file_name": "picture.png", "text": "its caption"}.',
        ) from None


def _text(entry: dict[str, Any], key: str) -> str:
    if not isinstance(entry[key], str):
        raise TypeError(f"{key} is {entry[key]!r}, not a text")
    return str(entry[key])


def _inside(folder: Path, name: str) -> Path:
    """The folder's file of this name.

    Raises:
        DatasetError: There is none, or the name leads out of the folder.
    """
    root = folder.expanduser().resolve()
    path = Path(os.path.normpath(root / name))
    if not path.is_relative_to(root) or path.relative_to(root).as_posix() != name or not path.is_file():
        raise DatasetError(f"There is no picture {name!r} in {folder}.", hint="Open the folder again.")
    return path


@contextmanager
def _changing(home: Home, folder: Path) -> Iterator[Entries]:
    """The folder's entries, to be changed by one process at a time; written if they were."""
    file = overlay_file(home, folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(".lock")):
        before = read_overlay(file) if file.is_file() else {}
        entries = dict(before)
        yield entries
        if entries != before:
            lines = [
                json.dumps({"file_name": name, "text": entries[name]}, ensure_ascii=False) for name in sorted(entries)
            ]
            atomic_write(file, "".join(f"{line}\n" for line in lines).encode())


def _put(entries: Entries, fresh: Before) -> None:
    """Set these entries, and remove those that are None."""
    for name, text in fresh.items():
        if text is None:
            entries.pop(name, None)
        else:
            entries[name] = text


def _note(file: Path, record: dict[str, Any]) -> None:
    """Add one line to the history: before the change itself, so a crash between them leaves nothing to lose."""
    torn = file.is_file() and not file.read_bytes().endswith(b"\n")
    with file.open("ab") as history:
        history.write((b"\n" if torn else b"") + json.dumps(record, ensure_ascii=False).encode() + b"\n")
