"""Edits of captions, crops and masks made in Atelier: the user's folder is only read.

A folder of images has its overlay in the home, `datasets/<name>-<8 hex>/metadata.jsonl`, in the format of Hugging Face
datasets with keys of our own: one `{"file_name": "relative/path.png", "text": "caption", "focus": [0.5, 0.3], "mask":
"masks/1f2e.png", "left_out": true}` a line, each key only where it says something. Beside it `history.jsonl` keeps
every change, to be undone and done again.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock

from trainer.contract.files import append_line, atomic_write
from trainer.contract.home import Home
from trainer.contract.ours import check, open_plain
from trainer.contract.settings.dataset import Concept, DatasetSettings
from trainer.contract.wording import named
from trainer.dataset.encodings import plain
from trainer.dataset.errors import DatasetError

KEPT_HISTORIES = 2
LAST_BYTES = 64
LINES = 2**16  # of which image and entry are remembered
HISTORY_BYTES = 1 << 30  # a change of 10,000 captions takes some 3 MB
READABLE = 60  # letters of the folder's own name in that of its overlay


@dataclass(frozen=True)
class Entry:
    """What overrides an image's own caption, crop and mask."""

    text: str | None = None  # None: the image keeps its own caption; empty: it has none
    focus: tuple[float, float] | None = None  # what the crop keeps in view: shares of width and height
    mask: str | None = None  # path relative to the overlay's folder
    left_out: bool = False  # excluded from training


# What reading a line that is no entry may raise
SENSELESS = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
Entries = dict[str, Entry]  # by the image's path, relative to its folder and with forward slashes
Replaced = dict[str, Entry | None]  # what stood there before; None: there was no entry
Update = Entry | None | Callable[[Entry], Entry | None]  # an entry, none, or what is made of the one that stands there


@dataclass(frozen=True)
class Change:
    """One step to undo or redo: the entries it sets, and what the user did."""

    puts: Replaced
    what: str = ""

    @property
    def names(self) -> list[str]:
        """Its images."""
        return list(self.puts)


@dataclass
class History:
    """Returns the changes in force and those undone, each list's next step last; cached, so not to be modified."""

    done: list[Change] = field(default_factory=list)
    undone: list[Change] = field(default_factory=list)


def overlay_file(home: Home, folder: Path) -> Path:
    """Returns where the edits of this image folder are; the file exists once something was edited."""
    path = folder.expanduser().resolve()
    name = re.sub(r"[^\w.-]+", "-", path.name)[:READABLE].strip("-.") or "pictures"
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    return home.sets / f"{name}-{digest}" / "metadata.jsonl"


def captioning_folder(home: Home, folder: Path) -> Path:
    """Returns where the automatic captioning of this image folder works, once there was one."""
    return overlay_file(home, folder).with_name("captioning")


def existing_overlay(home: Home, folder: Path) -> Path | None:
    """Returns the overlay of this image folder if there is one.

    Raises:
        NotOurs: It is no plain file, or its folder is a link.
    """
    path = overlay_file(home, folder)
    check(path.parent, folder=True)
    check(path)
    return path if path.is_file() else None


def read_overlay(path: Path) -> Entries:
    """The entries of a metadata.jsonl, each on one line.

    Raises:
        DatasetError: Not there, not UTF-8, or a line that is no such entry.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # a caption may hold other separators of lines
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"The captions {path} cannot be read: {error}.",
            hint=f"Give a metadata.jsonl in UTF-8, or leave {named('dataset.captions')} empty.",
        ) from None
    return dict(_line(path, number, line) for number, line in enumerate(lines, start=1) if line.strip())


def entries_of(home: Home, folder: Path) -> Entries:
    """Returns the entries of an image folder; none if nothing was edited there.

    Raises:
        DatasetError: The overlay cannot be read.
    """
    path = existing_overlay(home, folder)
    return read_overlay(path) if path else {}


def with_overlays(dataset: DatasetSettings, home: Home) -> DatasetSettings:
    """Returns the settings with the overlays of their folders where they name no captions file."""

    def changed(folder: DatasetSettings | Concept) -> dict[str, str]:
        """One folder and its captions."""
        images = Path(folder.images).expanduser()
        own = Path(folder.captions).expanduser() if folder.captions else existing_overlay(home, images)
        return {"images": str(images), "captions": str(own or "")}

    concepts = tuple(concept.model_copy(update=changed(concept)) for concept in dataset.concepts)
    return dataset.model_copy(update={**changed(dataset), "concepts": concepts})


def overlays_in(dataset: DatasetSettings, home: Home) -> list[str]:
    """Returns the captions files of such settings that are overlays."""
    folders: list[DatasetSettings | Concept] = [dataset, *dataset.concepts]
    return [one.captions for one in folders if one.captions == str(overlay_file(home, Path(one.images)))]


def change(home: Home, folder: Path, changes: Mapping[str, Update], what: str = "") -> list[str]:
    """Edit images' entries as one change that `undo` reverts; returns the images that changed.

    Args:
        home: Where the overlay lies.
        folder: The image folder.
        changes: By the image's path, relative to the folder and with forward slashes. None removes the entry. To change
            a part of it, pass a function such as `partial(replace, text="a bear")`: it is applied to the entry of that
            time, so edits made meanwhile stay.
        what: The change in the user's words, shown when it is undone.

    Raises:
        DatasetError: A name that is no file of the folder, a value out of range, or an overlay that cannot be read.
    """
    for name in changes:
        _inside(folder, name)
    with _changing(home, folder) as entries:
        edited = {n: edit(entries.get(n, Entry())) if callable(edit) else edit for n, edit in changes.items()}
        fresh = {name: _tidy(name, entry) for name, entry in edited.items()}
        before = {name: entries.get(name) for name, entry in fresh.items() if entries.get(name) != entry}
        if before:
            _note(history_file(home, folder), {"before": _spelt(before), "what": what})
            _put(entries, fresh)
    return list(before)


def undo(home: Home, folder: Path) -> Change | None:
    """Undo the last change; returns it, None if there is nothing to undo.

    Raises:
        DatasetError: The overlay cannot be read.
    """
    return _go(home, folder, "undone")


def redo(home: Home, folder: Path) -> Change | None:
    """Redo the change that was undone last; returns it, None if there is none.

    Raises:
        DatasetError: The overlay cannot be read.
    """
    return _go(home, folder, "redone")


def history(home: Home, folder: Path) -> History:
    """Returns what can be undone and redone; a line that cannot be read is skipped."""
    file = history_file(home, folder)
    try:
        with open_plain(file, most=HISTORY_BYTES) as opened:
            read = _read_before(file, opened)
            opened.seek(read.size)
            before, end, rest = opened.read().rpartition(b"\n")
    except FileNotFoundError:
        return History()
    if end:
        whole = before + end
        last = (read.last + whole)[-LAST_BYTES:]
        read = _Read(read.inode, read.size + len(whole), last, _replayed(read.known, whole))
    _histories[file] = read  # the newest stand last
    while len(_histories) > KEPT_HISTORIES:
        _histories.pop(next(iter(_histories)), None)
    return _replayed(read.known, rest) if rest else read.known


@dataclass(frozen=True)
class _Read:
    """A history as far as it was read: lines are only ever added, so each is read once."""

    inode: int = -1
    size: int = 0  # bytes
    last: bytes = b""  # of them, by which it is seen to be that file still
    known: History = field(default_factory=History)


_histories: dict[Path, _Read] = {}


def _read_before(file: Path, opened: FileIO) -> _Read:
    """What was read of this file, nothing if it is another one now."""
    read = _histories.pop(file, _Read())
    opened.seek(read.size - len(read.last))
    same = opened.read(len(read.last)) == read.last
    return read if same and os.fstat(opened.fileno()).st_ino == read.inode else _Read(os.fstat(opened.fileno()).st_ino)


def _replayed(known: History, lines: bytes) -> History:
    """The history after some more lines."""
    after = History(list(known.done), list(known.undone))
    for line in lines.split(b"\n"):
        with suppress(*SENSELESS):
            _replay(after, json.loads(line))
    return after


def history_file(home: Home, folder: Path) -> Path:
    """Every change, every undoing and redoing of one, a line each; only ever added to."""
    return overlay_file(home, folder).with_name("history.jsonl")


def _go(home: Home, folder: Path, way: str) -> Change | None:
    """One step back ("undone") or forward ("redone")."""
    with _changing(home, folder) as entries:
        known = history(home, folder)
        steps = known.done if way == "undone" else known.undone
        if not steps:
            return None
        step = steps[-1]
        _note(history_file(home, folder), {way: _spelt({name: entries.get(name) for name in step.puts})})
        _put(entries, step.puts)
        return step


def _replay(known: History, record: dict[str, Any]) -> None:
    """Apply one line of the history; lines of undoing were once only `true`, which cannot be redone."""
    if "before" in record:
        known.done.append(Change(_entries(record["before"]), record.get("what", "")))
        known.undone.clear()
    elif "undone" in record and known.done:
        what = known.done.pop().what
        if record["undone"] is not True:
            known.undone.append(Change(_entries(record["undone"]), what))
    elif "redone" in record and known.undone:
        known.done.append(Change(_entries(record["redone"]), known.undone.pop().what))


def _entries(record: dict[str, Any]) -> Replaced:
    """A record's entries; each was once no more than a caption."""
    return {
        name: Entry(text=one) if isinstance(one, str) else None if one is None else _entry(one)
        for name, one in record.items()
    }


def _spelt(entries: Replaced) -> dict[str, dict[str, Any] | None]:
    """Entries, ready for JSON."""
    return {name: None if entry is None else _record(entry) for name, entry in entries.items()}


def _record(entry: Entry) -> dict[str, Any]:
    """What an entry says, under the names it has in the file."""
    said = {"text": entry.text, "focus": entry.focus, "mask": entry.mask, "left_out": entry.left_out or None}
    return {key: value for key, value in said.items() if value is not None}


def _line(path: Path, number: int, line: str) -> tuple[str, Entry]:
    """Image and entry of one line."""
    try:
        return _said_in(line)
    except SENSELESS as error:
        raise DatasetError(
            f"Line {number} of {path} is no caption: {type(error).__name__}: {error}.",
            hint='Each line must read {"file_name": "picture.png", "text": "its caption"}.',
        ) from None


@lru_cache(maxsize=LINES)
def _said_in(line: str) -> tuple[str, Entry]:
    """Image and entry of a line, which is read again for every answer of the page; raises one of SENSELESS."""
    said = json.loads(line)
    name, entry = str(PurePosixPath(_text(said, "file_name"))), _entry(said)
    return name, Entry(text=_text(said, "text")) if entry == Entry() else entry  # the key it lacks is named


@lru_cache(maxsize=LINES)
def _line_of(name: str, entry: Entry) -> str:
    """The line that says this of an image."""
    return json.dumps({"file_name": name, **_record(entry)}, ensure_ascii=False) + "\n"


def _entry(said: dict[str, Any]) -> Entry:
    """What one line says.

    Raises:
        TypeError: A value of another kind.
        ValueError: A value out of range.
    """
    text = plain(_text(said, "text")) if "text" in said else None
    mask = _text(said, "mask") if "mask" in said else None
    left_out = said.get("left_out", False)
    if not isinstance(left_out, bool):
        raise TypeError(f"left_out is {left_out!r}, not true or false")
    return _checked(Entry(text, _focus(said.get("focus")), mask, left_out))


def _focus(value: object) -> tuple[float, float] | None:
    match value:
        case None:
            return None
        case [float() | int() as x, float() | int() as y]:
            return float(x), float(y)
    raise TypeError(f"focus is {value!r}, not two numbers")


def _checked(entry: Entry) -> Entry:
    """Returns the entry if it is valid.

    Raises:
        ValueError: A focus outside the image, or a mask outside the overlay's folder.
    """
    if entry.focus is not None and not all(0 <= share <= 1 for share in entry.focus):
        raise ValueError(f"focus is {list(entry.focus)}, not two shares from 0 to 1")
    if entry.mask is not None:
        mask = PurePosixPath(entry.mask)
        if mask.is_absolute() or ".." in mask.parts or not mask.parts or re.search(r"[\\:\0]", entry.mask):
            raise ValueError(f"mask is {entry.mask!r}, not a path within the folder")
    return entry


def _tidy(name: str, entry: Entry | None) -> Entry | None:
    """The entry as it is written: its text on one line, and none at all if it says nothing."""
    if entry is None:
        return None
    try:
        tidy = _checked(entry if entry.text is None else replace(entry, text=plain(entry.text)))
    except ValueError as error:
        raise DatasetError(f"{name} cannot be changed: {error}.", hint="Open the folder again.") from None
    return None if tidy == Entry() else tidy


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
    there = os.path.isfile(path)  # noqa: PTH113 - unlike Path's own it says no to a name that none can have
    if not there or not path.is_relative_to(root) or path.relative_to(root).as_posix() != name:
        raise DatasetError(f"There is no image {name!r} in {folder}.", hint="Open the folder again.")
    return path


@contextmanager
def _changing(home: Home, folder: Path) -> Iterator[Entries]:
    """The folder's entries, to be changed by one process at a time; written if they were."""
    file = overlay_file(home, folder)
    check(file.parent, folder=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = file.with_name(".lock")
    check(file)
    check(lock, changed=True)
    with FileLock(lock):
        before = read_overlay(file) if file.is_file() else {}
        entries = dict(before)
        yield entries
        if entries != before:
            atomic_write(file, "".join(_line_of(name, entries[name]) for name in sorted(entries)).encode())


def _put(entries: Entries, fresh: Replaced) -> None:
    """Set these entries, and remove those that are None."""
    for name, entry in fresh.items():
        if entry is None:
            entries.pop(name, None)
        else:
            entries[name] = entry


def _note(file: Path, record: dict[str, Any]) -> None:
    """Add one line to the history: before the change itself, so a crash between them leaves nothing to lose."""
    append_line(file, json.dumps(record, ensure_ascii=False).encode())
