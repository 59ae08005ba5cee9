"""Image folders of the Dataset page: read once, and again only when a file in them changed."""

import threading
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, Self, get_args

from trainer.contract.home import Home, user_path
from trainer.dataset.captions import Item, tag_frequency, tags_of
from trainer.dataset.errors import NoImages
from trainer.dataset.folders import listing
from trainer.dataset.overlay import Entries, Entry, entries_of, overlay_file
from trainer.dataset.scan import look, with_entry
from trainer.dataset.unread_files import counted, in_words

KEPT = 4  # folders
Choice = Literal["all", "bare", "changed", "left_out"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
Stamp = frozenset[tuple[str, int, int]]  # of every file: name, time of the last change, bytes


@dataclass
class Listing:
    """A folder as it was read last, without what was changed here."""

    folder: Path
    names: list[str]  # of all files that look like images, in order
    stamp: Stamp
    items: dict[str, Item] | None = None  # not read yet
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
        stamp = frozenset(one for name, path in found.files.items() for one in _seen(name, path))
        return cls(folder, list(found.images), stamp)

    def read(self) -> None:
        """Sizes and captions of all images, read once; who comes meanwhile waits.

        Raises:
            TrainerError: The folder cannot be used.
        """
        with self._reading:
            if self.items is None:
                found, _ = look(self.folder)
                self.items = {item.name: item for item in found}


def _seen(name: str, path: Path) -> Stamp:
    """The file's name, time and size; empty if it was removed since it was listed."""
    try:
        file = path.stat()
    except OSError:
        return frozenset()
    return frozenset({(name, file.st_mtime_ns, file.st_size)})


_listings: dict[Path, Listing] = {}
_using = threading.Lock()


def listing_of(folder: Path, *, again: bool) -> Listing:
    """The folder as it is now, or without looking `again` as it was seen last, if it ever was.

    Raises:
        FolderMissing: No such folder.
        NoImages: No images.
    """
    known = _listings.get(folder)
    if known is not None and not again:
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
    def of(cls, home: Home, folder: str, *, read: bool = True, again: bool = True) -> Self:
        """The folder that the user wrote.

        Args:
            home: Holds the changes.
            folder: Its path.
            read: False gives a folder never read by names alone.
            again: False passes over what changed in the folder since it was looked at last.

        Raises:
            TrainerError: It cannot be shown.
        """
        path = user_path(folder).absolute()
        known = listing_of(path, again=again)
        if read:
            known.read()
        entries = entries_of(home, path)
        items = known.items
        names = known.names if items is None else list(items)
        return cls(home, path, names, items or {}, items is not None, known.stamp, entries)

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
        return {
            "all": set(self.names),
            "bare": {name for name, caption in self.captions.items() if not caption},
            "changed": {name for name in self.own if name in self.entries},
            "left_out": {name for name in self.own if self.entry(name).left_out},
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
