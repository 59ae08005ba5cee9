"""The files below a folder: hidden ones skipped, links followed only where they stay within."""

import os
import re
import stat
import sys
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

from trainer.dataset.errors import FolderMissing
from trainer.dataset.formats import SUFFIXES
from trainer.dataset.mask_files import told_apart
from trainer.dataset.problems import Problem, listed

# What is skipped: message, what to do, and why it matters
LEFT = {
    "link_outside": (
        "Links that lead out of the folder are skipped",
        "Copy their files into the folder, or add their folder as a concept.",
        "A link could add images that nobody meant to train on.",
    ),
    "link_broken": (
        "Broken links are skipped",
        "Remove them, or restore their files.",
        "An image that was meant to be trained is missing.",
    ),
    "folder_closed": (
        "Folders that cannot be opened are skipped",
        "Give yourself permission to read them, or move them away.",
        "Their images are missing from the training.",
    ),
    "name_unreadable": (
        "Files whose names are not valid text are skipped",
        "Rename them.",
        "Captions and logs cannot name such a file.",
    ),
    "own_folders": (
        "Atelier's own folders are skipped",
        "Nothing to do. Images in a folder of their own make this note go away.",
        "A run would train on its own previews.",
    ),
    "project_folders": (
        "Folders of a kohya_ss project that are not its training images are skipped",
        "Nothing to do. To train on them all the same, add them as concepts.",
        "Samples and logs would be trained as the subject.",
    ),
    "class_folders": (
        "Regularization images are not trained as the subject",
        "Nothing to do: a training takes them as class images (prior preservation). To train without them, choose the "
        "folder of the training images itself; to train them as the subject, rename their folder.",
        "The subject would become everything that they show.",
    ),
}
RUN = {"config.toml", "control"}  # what marks a run's folder
HOME = {"runs", "cache", "datasets", "presets", "thumbnails", "temporary"}  # beside the queue's lock
CHECKOUT = {"launch.py", "app", "trainer", "presets"}
OF_CHECKOUT = {"app", "trainer", "presets", "tests", "assets"} | HOME
# Of a project for training, by the lower case of their names: its images, what lies beside them, and class images
OF = r"(?:[ _-]?(?:img|image|data|dataset)s?)"
TRAINING = re.compile(rf"(?:img|image|train|training|instance)s?{OF}?|data(?:set)?s?")
BESIDE = re.compile(r"(?:model|log|sample|output|lora|checkpoint|ckpt)s?")
REGULARIZATION = re.compile(rf"(?:regs?|regulari[sz]ations?){OF}?|class{OF}")
LIKELY = re.compile(r"class|regs?[ _-].+|regulari[sz]ations?[ _-].+")  # of class images only in a project's layout
REPEATS = re.compile(r"([1-9]\d{0,2})_(.+)")  # kohya's "10_ana woman"; a year is no number of repeats


@dataclass
class Listing:
    """The files below a folder, and what was noticed on the way."""

    folder: Path
    files: dict[str, Path]  # by path relative to the folder with forward slashes, in order
    problems: list[Problem]
    class_folders: list[Path] = field(default_factory=list)  # folders within it of class images, which are not entered

    @cached_property
    def images(self) -> dict[str, Path]:
        """Those that are named like an image, without the masks."""
        return {name: self.files[name] for name in self._told_apart[0]}

    @cached_property
    def masks(self) -> dict[str, str]:
        """The names of masks, by that of their image with or without its suffix."""
        return self._told_apart[1]

    @cached_property
    def lost_masks(self) -> list[Path]:
        """Masks whose image is missing."""
        known = self.images.keys() | {name.rpartition(".")[0] for name in self.images}
        return [self.files[mask] for image, mask in self.masks.items() if image not in known]

    @cached_property
    def others(self) -> set[str]:
        """The files that are neither images nor masks."""
        return self.files.keys() - self.images.keys() - set(self.masks.values())

    def mask_of(self, image: str) -> Path | None:
        """The mask of an image."""
        name = self.masks.get(image) or self.masks.get(image.rpartition(".")[0])
        return self.files[name] if name else None

    @cached_property
    def _told_apart(self) -> tuple[list[str], dict[str, str]]:
        return told_apart(name for name in self.files if name.lower().endswith(SUFFIXES))


def listing(folder: Path, apart: Collection[Path] = (), base: Path | None = None) -> Listing:
    """Returns every file below the folder except those below the folders `apart`, which are resolved.

    What was noticed names files relative to `base`, which is the folder itself if not given.

    Raises:
        FolderMissing: No such folder.
    """
    if not folder.is_dir():
        raise FolderMissing(folder)
    real = os.path.realpath(folder)
    walk = _Walk(folder, real, [path for path in apart if path.is_relative_to(real)], set(map(os.fspath, apart)))
    walk.go()
    names = sorted(walk.files, key=lambda name: name.split("/"))
    files = {name: walk.files[name] for name in names}
    return Listing(folder, files, _noticed(walk, base or folder), sorted(walk.left.get("class_folders", [])))


@dataclass(frozen=True)
class Repeats:
    """Repeats and caption in a folder's name, as in kohya_ss."""

    count: int = 1
    words: str = ""
    folder: str = ""  # that name


def repeats_of(folder: Path, name: str) -> Repeats:
    """Returns the repeats of a file by its nearest folder that sets some; `folder` is the outermost."""
    return _said_by(folder.absolute().name, name.rpartition("/")[0])


def words_of_folder(name: str) -> str:
    """Returns a folder's name without kohya's repeats."""
    match = REPEATS.fullmatch(name)
    return (match[2] if match else name).strip()


@lru_cache(maxsize=1000)
def _said_by(outermost: str, within: str) -> Repeats:
    for part in (*reversed(within.split("/")), outermost):
        if match := REPEATS.fullmatch(part):
            return Repeats(int(match[1]), match[2].strip(), part)
    return Repeats()


@dataclass
class _Walk:
    """One way through a folder."""

    root: Path
    real_root: str
    apart: Collection[Path]  # folders within it that are not entered, by whatever way
    seen: set[str] = field(default_factory=set)  # real paths of what is not to be taken again
    files: dict[str, Path] = field(default_factory=dict)
    links: list[tuple[str, Path]] = field(default_factory=list)
    left: dict[str, list[Path]] = field(default_factory=dict)  # by a code of LEFT

    def leave(self, code: str, path: Path) -> None:
        """Note what is not taken, and why."""
        self.left.setdefault(code, []).append(path)

    def go(self) -> None:
        """Find the files, then follow the links: so that what is there itself goes before what leads to it."""
        self._enter(self.root, "", self.real_root)
        while self.links:
            links, self.links = sorted(self.links), []
            for name, path in links:
                self._follow(name, path)

    def _enter(self, folder: Path, prefix: str, real: str) -> None:
        """Note the files of a folder and of those within; names start with `prefix`."""
        folders = deque([(folder, prefix, real)])
        while folders:
            folder, prefix, real = folders.popleft()
            if real in self.seen:
                continue
            self.seen.add(real)
            try:
                with os.scandir(folder) as found:
                    entries = list(found)
            except OSError:
                self.leave("folder_closed", folder)
                continue
            names = {entry.name for entry in entries}
            if names >= RUN and folder != self.root:
                self.leave("own_folders", folder)
                continue
            others = _not_data(folder, names)
            for entry in entries:
                if entry.name in others and entry.is_dir():
                    self._pass_over(others[entry.name], Path(entry.path))
                elif not entry.name.startswith("."):
                    self._note(entry, prefix, real, folders)

    def _pass_over(self, code: str, path: Path) -> None:
        """Note a folder that holds no training images, unless another folder of the data set is meant by it."""
        if os.path.realpath(path) not in self.seen:
            self.leave(code, path)

    def _note(self, entry: os.DirEntry[str], prefix: str, real: str, folders: deque[tuple[Path, str, str]]) -> None:
        """Take a file, and put what leads further on its list."""
        name, path = prefix + entry.name, Path(entry.path)
        if not _can_be_written(entry.name):
            self.leave("name_unreadable", path)
        elif _is_link(entry):
            self.links.append((name, path))
        elif entry.is_dir(follow_symlinks=False):
            folders.append((path, f"{name}/", os.path.join(real, entry.name)))  # noqa: PTH118 - ten thousand times
        elif entry.is_file(follow_symlinks=False):
            self.files[name] = path
            self.seen.add(os.path.join(real, entry.name))  # noqa: PTH118

    def _follow(self, name: str, path: Path) -> None:
        """Take what a link leads to, if it lies within the folder and was not found already."""
        try:
            real = os.path.realpath(path, strict=True)
        except OSError:  # leads nowhere, or in a circle
            self.leave("link_broken", path)
            return
        if not Path(real).is_relative_to(self.real_root):
            self.leave("link_outside", path)
        elif any(Path(real).is_relative_to(folder) for folder in self.apart):
            return
        elif path.is_dir():
            self._enter(path, f"{name}/", real)
        elif path.is_file() and real not in self.seen:
            self.seen.add(real)
            self.files[name] = path


def _not_data(folder: Path, names: set[str]) -> dict[str, str]:
    """Which of a folder's own folders hold no training images, by what lies beside them, each with a code of LEFT."""
    if names >= CHECKOUT:
        return dict.fromkeys(names & OF_CHECKOUT, "own_folders")
    if ".queue.lock" in names:
        return dict.fromkeys(names & HOME, "own_folders")
    sure = _called(REGULARIZATION, names)
    beside, classes = _called(BESIDE, names), sure | _called(LIKELY, names)
    rest = names - beside - classes
    if not (beside or classes) or not any(_may_train(folder / name) for name in rest):
        return {}
    numbered = any(REPEATS.fullmatch(name) or _has_repeats(folder / name) for name in rest)
    if numbered or (classes and _called(TRAINING, rest)):
        return {**dict.fromkeys(beside, "project_folders"), **dict.fromkeys(classes, "class_folders")}
    return dict.fromkeys(sure, "class_folders")


def _called(names_of: re.Pattern[str], names: set[str]) -> set[str]:
    return {name for name in names if names_of.fullmatch(name.lower())}


def _may_train(path: Path) -> bool:
    """Whether this is an image, or a folder in which there may be some."""
    return path.name.lower().endswith(SUFFIXES) or (not path.name.startswith(".") and path.is_dir())


def _has_repeats(folder: Path) -> bool:
    """Whether a folder's own folders are called as kohya_ss calls them: 10_ana woman."""
    try:
        return any(REPEATS.fullmatch(one.name) and one.is_dir() for one in folder.iterdir())
    except OSError:
        return False


def _is_link(entry: os.DirEntry[str]) -> bool:
    """Whether this leads elsewhere: a symbolic link, or a junction, as Windows makes for folders."""
    if sys.platform == "win32" and entry.is_dir(follow_symlinks=False):
        return entry.stat(follow_symlinks=False).st_reparse_tag == stat.IO_REPARSE_TAG_MOUNT_POINT or entry.is_symlink()
    return entry.is_symlink()


def _can_be_written(name: str) -> bool:
    """Whether a file's name is text: a disk may hold names of any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _noticed(walk: _Walk, base: Path) -> list[Problem]:
    """What the walk had to leave, in words."""
    problems = []
    for code, paths in walk.left.items():
        message, hint, why = LEFT[code]
        named = () if code == "name_unreadable" else tuple(paths)  # no page and no log could show it
        problems.append(Problem(code, f"{message}: {listed(paths, base)}.", hint, named, why))
    return problems
