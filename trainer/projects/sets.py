"""Image sets: folders of dropped images in the home's `datasets`, which can be added to and renamed.

Beside them lie the folders of captions and masks that were edited here (`trainer.dataset.overlay`).
"""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path, PurePath
from typing import Any

from trainer.contract.errors import InvalidSettings, TrainerError
from trainer.contract.home import Home
from trainer.contract.ours import check, check_all
from trainer.contract.settings.config import paths_of
from trainer.dataset import caption_files, formats, mask_files
from trainer.dataset.overlay import captioning_folder, overlay_file
from trainer.projects.project import Project, checked_name
from trainer.runs import moved
from trainer.runs.folder import RunFolder
from trainer.runs.queue import Queue
from trainer.runs.workfolder import worker_in

KEPT = (*formats.SUFFIXES, *caption_files.SUFFIXES)
IMAGE_SUFFIX, CAPTION_SUFFIX = ("|".join(map(re.escape, known)) for known in (formats.SUFFIXES, caption_files.SUFFIXES))
MASK_ENDING = "|".join(map(re.escape, (*mask_files.ENDINGS, *mask_files.COMMON)))
COMPANION = re.compile(  # a.txt, a.png.txt, a.mask.png and a_mask.png belong to an image
    rf"(?P<stem>.+?)(?P<tail>(?P<of>{IMAGE_SUFFIX})?(?:{CAPTION_SUFFIX})"
    rf"|(?:{MASK_ENDING})(?:{IMAGE_SUFFIX}))",
    re.IGNORECASE,
)
OF_EDITS = ("metadata.jsonl", "history.jsonl", "captioning", "masks", ".lock")  # what no set holds


def is_set(home: Home, folder: Path) -> bool:
    """Whether this is one of the home's image sets, which may be added to.

    Raises:
        NotOurs: It lies among them, and leads elsewhere.
    """
    if folder.parent != home.sets:
        return False
    check(folder, folder=True)
    return folder.is_dir() and not any((folder / name).exists() for name in OF_EDITS)


def all_sets(home: Home) -> list[Path]:
    """Returns the sets with images in them, those changed last first."""
    found: list[tuple[float, Path]] = []
    with suppress(FileNotFoundError):
        for folder in home.sets.iterdir():
            with suppress(OSError):
                if is_set(home, folder) and any(path.suffix.lower() in formats.SUFFIXES for path in folder.iterdir()):
                    found.append((folder.stat().st_mtime, folder))
    return [folder for _, folder in sorted(found, reverse=True)]


def keep_dropped(home: Home, files: list[Path], folder: Path | None = None) -> Path:
    """Put the images and captions among these files into a set; returns its folder.

    No file takes another's place: of two of one name the second gets a number, its caption and its mask with it.

    Args:
        home: Where the set is, `datasets/dropped-TIME` at first.
        files: What was dropped; uploads, which lie among the home's temporary files, are moved, others copied.
        folder: A set to be added to; None, or any other folder: a new one.

    Raises:
        NotOurs: The set, or something in it, leads elsewhere.
        OSError: No room, or not readable; what was kept by then stays.
    """
    if folder is None or not is_set(home, folder):
        folder = _fresh_folder(home)
    check_all(folder, deepest=1)
    taken = {name.lower() for path in folder.iterdir() for name in (path.name, path.stem)}
    wanted = [file for file in files if file.suffix.lower() in KEPT]
    beside = {file: COMPANION.fullmatch(file.name) for file in wanted}
    named: dict[str, list[tuple[str, str]]] = {}  # by stem, those that images got, with their suffixes, in order
    given: Counter[tuple[str, str]] = Counter()  # how many images of a stem have got such a file
    for file in sorted(wanted, key=lambda file: beside[file] is not None):
        match = beside[file]
        stem, tail = (match["stem"], match["tail"]) if match else (file.stem, file.suffix)
        of = (match["of"] or "").lower() if match else ""
        images = [one for one, suffix in named.get(stem, []) if of in ("", suffix.lower())]
        if match and given[stem, tail] < len(images):
            fresh = images[given[stem, tail]]
            given[stem, tail] += 1
        else:
            fresh = _free_stem(taken, stem, tail, beside_image=match is not None)
            if not match:
                named.setdefault(stem, []).append((fresh, tail))
        keep = shutil.move if file.resolve().is_relative_to(home.temporary) else shutil.copyfile
        keep(file, folder / f"{fresh}{tail}")
        taken |= {fresh.lower(), f"{fresh}{tail}".lower()}
    return folder


def rename(home: Home, folder: Path, wanted: str) -> Path:
    """Call a set otherwise, also in all projects and runs that read it; returns its folder.

    Args:
        home: Where it is.
        folder: The set.
        wanted: Its new name, which gets a number if it is taken.

    Raises:
        InvalidSettings: It is no set, no folder can be called so on every system, it is being captioned, or a run that
            is trained or waits reads it.
        OSError: The system refuses.
    """
    name = checked_name(wanted, of="set")
    if not is_set(home, folder):
        raise InvalidSettings(f"{folder} holds no dropped images.", hint="Rename it in your file manager.")
    if name == folder.name:
        return folder
    _refuse_used(home, folder)
    fresh = next(one for one in _numbered(folder.with_name(name)) if _is_free(home, folder, one))
    edits, fresh_edits = (overlay_file(home, path).parent for path in (folder, fresh))
    check(edits, folder=True)
    folder.rename(fresh)
    if edits.exists():
        edits.rename(fresh_edits)
    _follow(home, {folder: fresh, edits: fresh_edits})
    return fresh


def _follow(home: Home, places: dict[Path, Path]) -> None:
    """Have projects and runs look for their files where they are now; one that cannot be read says so itself."""
    for project in Project.all(home):
        with suppress(TrainerError):
            values = project.read().values
            now = {place: _followed(value, places) for place, value in values.items()}
            if changes := {place: value for place, value in now.items() if value != values[place]}:
                project.enter(changes)
    for run in RunFolder.all(home):
        with suppress(TrainerError, OSError):
            began, latest = paths_of(run.begun_with()), paths_of(run.config())
            known = {old: _followed(path, places) for (_, old), (_, path) in zip(began, latest, strict=True)}
            if [*known.values()] != [path for _, path in latest]:
                moved.record(run.moved_file, moved.recorded(run.moved_file) | known)


def _refuse_used(home: Home, folder: Path) -> None:
    queue = Queue(home)
    for run in filter(None, (queue.active(), *queue.waiting())):
        if any(PurePath(path).is_relative_to(folder) for _, path in paths_of(run.config())):
            seen = f"The images in {folder.name} are needed by {run.path.name}, which is trained or waits."
            raise InvalidSettings(seen, hint="Rename them once it has ended.")
    if worker_in(captioning_folder(home, folder)) is not None:
        seen = f"The images in {folder.name} are being captioned."
        raise InvalidSettings(seen, hint="Rename them once that has ended.")


def _is_free(home: Home, folder: Path, wanted: Path) -> bool:
    """Whether nothing has that name, in small letters or capitals, nor do edits of a folder that had it."""
    taken = {path.name.casefold() for path in home.sets.iterdir() if path != folder}
    return wanted.name.casefold() not in taken and not overlay_file(home, wanted).parent.exists()


def _followed(value: Any, places: dict[Path, Path]) -> Any:  # noqa: ANN401 - whatever was entered
    """The value with every path in it that lies in one of the folders, where it is now."""
    if isinstance(value, dict):
        return {key: _followed(inner, places) for key, inner in value.items()}
    if isinstance(value, list):
        return [_followed(inner, places) for inner in value]
    for old, new in places.items():
        if isinstance(value, str) and PurePath(value).is_relative_to(old):
            return str(new / PurePath(value).relative_to(old))
    return value


def _numbered(folder: Path) -> Iterator[Path]:
    return (folder if number == 1 else folder.with_name(f"{folder.name}-{number}") for number in count(1))


def _fresh_folder(home: Home) -> Path:
    stem = home.sets / f"dropped-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = next(one for one in _numbered(stem) if not one.exists())
    folder.mkdir(parents=True)
    return folder


def _free_stem(taken: set[str], stem: str, suffix: str, beside_image: bool) -> str:
    """The stem, or the stem and a number, that no file has; a caption goes beside its image if that has none.

    What is taken, with suffix and without, is in lower case: some systems know no other.
    """
    numbered = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
    return next(one for one in numbered if (one + suffix * beside_image).lower() not in taken)
