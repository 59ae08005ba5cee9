"""Image folders of the Dataset page: read once, and again only when a file in them changed."""

import threading
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, Self, get_args

from trainer.contract.home import Home, user_path
from trainer.dataset.caption_tables import is_table
from trainer.dataset.captions import Item, tag_frequency, tags_of, with_tags
from trainer.dataset.errors import NoImages
from trainer.dataset.folders import listing
from trainer.dataset.overlay import Entries, Entry, entries_of, overlay_file
from trainer.dataset.scan import look, with_entry
from trainer.dataset.unread_files import counted, in_words

KEPT = 4  # folders
FEW = 100  # images that are looked at one by one
Choice = Literal["all", "bare", "changed", "left_out"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
Seen = tuple[int, int]  # time of the last change, bytes; (0, 0) of what is gone
Stamp = frozenset[tuple[str, Seen]]  # of every file


@dataclass
class Listing:
    """A folder as it was read last, without what was changed here."""

    folder: Path
    names: list[str]  # of all files that look like images, in order
    files: dict[str, Seen]  # everything in it
    folders: dict[Path, Seen]  # with a file in them: their time changes as files come and go
    items: dict[str, Item] | None = None  # not read yet
    shown: "ImageFolder | None" = None  # with the changes, as it was last: few are new since
    _reading: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, folder: Path) -> Self:
        """The folder's images by name alone, which takes milliseconds for thousands.

        Raises:
            FolderMissing: No such folder.
            NoImages: No images.
        """
        found = listing(folder)
        if not found.images:
            raise NoImages(folder=folder, other_files=in_words(counted(found.files)))
        parents = {path.parent for path in found.files.values()} | {folder}
        folders = {path: _seen(path) for path in parents}  # first: what changes from now on changes them too
        return cls(folder, list(found.images), {name: _seen(path) for name, path in found.files.items()}, folders)

    @cached_property
    def stamp(self) -> Stamp:
        """What changes with any of its files."""
        return frozenset(self.files.items())

    @cached_property
    def _of_many(self) -> list[str]:
        """The files that may hold captions of many images."""
        return [name for name in self.files if is_table(name)]

    def still_true_of(self, names: Collection[str]) -> bool:
        """Whether all about these images is as it was read: their own files, and those that hold captions of many."""
        stems = {_stem(name) for name in names}
        theirs = [name for name in self.files if any(stem in stems for stem in _stems(name.lower()))]
        if len(names) > FEW or not stems <= {_stem(name) for name in theirs}:
            return False
        files_are = all(_seen(self.folder / name) == self.files[name] for name in [*theirs, *self._of_many])
        return files_are and all(_seen(path) == was for path, was in self.folders.items())

    def read(self) -> None:
        """Sizes and captions of all images, read once; who comes meanwhile waits.

        Raises:
            TrainerError: The folder cannot be used.
        """
        with self._reading:
            if self.items is None:
                found, _ = look(self.folder)
                self.items = {item.name: item for item in found}


def _stem(name: str) -> str:
    """What an image and its caption are both called; some programs write captions in other capitals."""
    return name.rpartition(".")[0].lower()


def _stems(name: str) -> Iterator[str]:
    """The name without its endings, one after the other: a.mask.png is a file of a.png, and a.jpg.txt of a.jpg."""
    stem, dot, _ = name.rpartition(".")
    while dot and "/" not in name[len(stem) :]:
        yield stem
        stem, dot, _ = stem.rpartition(".")


def _seen(path: Path) -> Seen:
    """The file's or folder's time and size."""
    try:
        file = path.stat()
    except OSError:
        return 0, 0
    return file.st_mtime_ns, file.st_size


_listings: dict[Path, Listing] = {}
_using = threading.Lock()


def listing_of(folder: Path, *, again: bool, only: Collection[str] = ()) -> Listing:
    """The folder as it is now; or without looking `again`, or at more than `only` these images, as it was seen last.

    Raises:
        FolderMissing: No such folder.
        NoImages: No images.
    """
    known = _listings.get(folder)
    if known is not None and (not again or (only and known.still_true_of(only))):
        return known
    fresh = Listing.of(folder)
    with _using:
        known = _listings.pop(folder, None)
        _listings[folder] = known if known is not None and known.stamp == fresh.stamp else fresh
        while len(_listings) > KEPT:
            _listings.pop(next(iter(_listings)))
        return _listings[folder]


@dataclass(frozen=True)
class ImageFolder:
    """An image folder with what was changed here, for one answer."""

    home: Home
    folder: Path
    names: list[str]
    own: dict[str, Item]  # without the changes; none while it is not `whole`
    whole: bool  # whether captions and sizes are known, and not only names
    stamp: Stamp
    entries: Entries

    @classmethod
    def of(cls, home: Home, folder: str, *, read: bool = True, again: bool = True, only: Collection[str] = ()) -> Self:
        """The folder that the user wrote.

        Args:
            home: Holds the changes.
            folder: Its path.
            read: False gives a folder never read by names alone.
            again: False passes over what changed in the folder since it was looked at last.
            only: The images that the answer changes: if all about them is as it was, no other file is looked at.

        Raises:
            TrainerError: It cannot be shown.
        """
        path = user_path(folder).absolute()
        known = listing_of(path, again=again, only=only)
        if read:
            known.read()
        entries, items, before = entries_of(home, path), known.items, known.shown
        names = known.names if items is None else list(items)
        made = cls(home, path, names, items or {}, items is not None, known.stamp, entries)
        if before is not None and before.home == home and before.own is items:
            made._follow(before)
        known.shown = made
        return made

    def _follow(self, before: "ImageFolder") -> None:
        """Take what was found out before, with what is new since; most answers change one caption of thousands."""
        if not before.__dict__.keys() >= {"items", "captions", "tags", "sets"}:
            return
        every = self.entries.keys() | before.entries.keys()
        fresh = [name for name in every if self.entries.get(name) != before.entries.get(name) and name in self.own]
        if len(fresh) > len(self.names) // 2:
            return
        overlay = overlay_file(self.home, self.folder)
        items = {name: with_entry(self.own[name], self.entry(name), overlay) for name in fresh}
        captions = {name: item.caption for name, item in items.items()}
        gone, sets = [before.captions[name] for name in fresh], before.sets
        self.__dict__["items"] = {**before.items, **items}
        self.__dict__["captions"] = {**before.captions, **captions}
        self.__dict__["tags"] = with_tags(before.tags, captions.values(), gone)
        self.__dict__["sets"] = {choice: (sets[choice] - set(fresh)) | one for choice, one in self._sets(fresh).items()}

    def entry(self, name: str) -> Entry:
        """What was changed about an image."""
        return self.entries.get(name, Entry())

    @cached_property
    def items(self) -> dict[str, Item]:
        """The images with the changes."""
        overlay = overlay_file(self.home, self.folder)
        return {name: with_entry(item, self.entry(name), overlay) for name, item in self.own.items()}

    @cached_property
    def captions(self) -> dict[str, str]:
        """Every image's caption, by name."""
        return {name: item.caption for name, item in self.items.items()}

    @cached_property
    def tags(self) -> dict[str, int]:
        """How often each tag occurs, most frequent first."""
        return tag_frequency(list(self.captions.values()))

    @cached_property
    def sets(self) -> dict[Choice, set[str]]:
        """The images that each choice shows."""
        return {**self._sets(self.own), "all": set(self.names)}

    def _sets(self, names: Iterable[str]) -> dict[Choice, set[str]]:
        """Those of these images that each choice shows."""
        names = list(names)
        return {
            "all": set(names),
            "bare": {name for name in names if not self.captions[name]},
            "changed": {name for name in names if name in self.entries},
            "left_out": {name for name in names if self.entry(name).left_out},
        }

    def chosen(
        self, choice: Choice, tags: tuple[str, ...] = (), text: str = "", among: tuple[str, ...] = ()
    ) -> list[str]:
        """The names of a choice's images with all these tags and the text in caption or name, `among` some or all."""
        wanted, text = self.sets[choice], text.strip().lower()
        wanted = wanted & set(among) if among else wanted
        named = [name for name in self.names if name in wanted]
        if text:
            named = [name for name in named if text in name.lower() or text in self.captions.get(name, "").lower()]
        for tag in tags:
            named = [name for name in named if tag in (one.lower() for one in tags_of(self.captions.get(name, "")))]
        return named
