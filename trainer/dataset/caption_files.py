"""The captions that lie in an image folder: a file beside each image, or one file for many."""

import re
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from trainer.dataset.caption_tables import FIRST, MEANT, NoTable, Reader, is_table, of_one_image, reader_of
from trainer.dataset.encodings import decoded, plain
from trainer.dataset.folders import Listing
from trainer.dataset.problems import Problem, listed, without_image

SUFFIXES = (".txt", ".caption", ".cap")  # the first that says something is the image's caption
JSON = ".json"  # of an image, if it has a caption in it
LONGEST = 1 << 20  # bytes of a caption; a file of more is something else
LONGEST_LIST = 1 << 25  # and of a list of them: a hundred thousand of 300 letters
SAID = 300  # letters of what is wrong with a list

TABLES = 20  # that are looked for in files of any name
ABSOLUTE = re.compile(r"/|[A-Za-z]:/")

Captions = tuple[str, ...]


@dataclass(frozen=True)
class OwnCaptions:
    """The captions that a folder itself holds."""

    of: dict[str, Captions]  # by image
    problems: list[Problem]
    files: set[str]  # those that are captions, or lists of them


def own_captions(found: Listing, names: Iterable[str], base: Path) -> OwnCaptions:
    """Returns the captions of these images in the folder itself, where it has some.

    An image's own file overrides the folder's captions.toml, which overrides its metadata.jsonl, and that other tables.
    What was noticed names files relative to `base`.
    """
    reader = _Reader(found, base)
    captions = {name: said for name in names if (said := reader.of(name))}
    return OwnCaptions(captions, reader.problems(), reader.used)


@dataclass
class _Reader:
    """Reads captions, and keeps what is wrong with their files."""

    found: Listing
    base: Path
    beside: dict[str, dict[str, str]] = field(default_factory=dict)  # by the name without suffix, then by suffix
    described: dict[str, str] = field(default_factory=dict)  # JSON files, by their name without suffix
    lists: dict[str, tuple[str, Captions]] = field(default_factory=dict)  # by image: the table, and what it says
    guessed: dict[str, dict[Path, Path | None]] = field(default_factory=dict)  # by encoding: files and their images
    unusable: dict[Path, str] = field(default_factory=dict)  # files that hold no caption, and why
    overruled: dict[tuple[str, str], list[str]] = field(default_factory=dict)  # two tables, and images they differ on
    used: set[str] = field(default_factory=set)  # files that are captions, or lists of them

    def __post_init__(self) -> None:
        strays = []
        for name in self.found.files:
            stem, _, ending = name.rpartition(".")
            suffix = f".{ending.lower()}"
            if suffix in SUFFIXES and stem in self.known:
                self.beside.setdefault(stem, {}).setdefault(suffix, name)
                self.used.add(name)
            elif suffix == JSON and stem in self.known:
                self.described[stem] = name
            elif suffix in SUFFIXES and stem.lower() in self._folded:
                strays.append((stem, suffix, name))
        for stem, suffix, name in strays:
            self._adopt(self._folded[stem.lower()], suffix, name)
        self._read_tables()

    @cached_property
    def known(self) -> dict[str, list[str]]:
        """The images by name, with their suffix and without."""
        known = {name: [name] for name in self.found.images}
        for name in self.found.images:
            known.setdefault(name.rpartition(".")[0], []).append(name)
        return known

    @cached_property
    def _folded(self) -> dict[str, str]:
        """The images by their lower case: Windows takes A.JPG and a.jpg for one, and folders from there mix them."""
        return {name.lower(): name for name in sorted(self.known)}

    def _adopt(self, image: str, suffix: str, name: str) -> None:
        """Take a file for an image's caption whose name differs in capitals, unless the image has one."""
        if image not in self.beside:
            self.beside[image] = {suffix: name}
            self.used.add(name)

    def of(self, name: str) -> Captions:
        """An image's captions: from a.txt, then from a.png.txt, then from a.json, then from a table."""
        stem = name.rpartition(".")[0]
        for files in (self.beside.get(stem, {}), self.beside.get(name, {})):
            for suffix in SUFFIXES:
                if suffix in files:
                    text = self._text(self.found.files[files[suffix]], LONGEST, self.found.files[name])
                    if caption := plain(text):
                        return (caption,)
        return self._described(stem, name) or (self.lists[name][1] if name in self.lists else ())

    def _described(self, *stems: str) -> Captions:
        """The captions in a JSON file beside an image."""
        for stem in stems:
            if file := self.described.get(stem):
                text = self._text(self.found.files[file], LONGEST, self.found.files[stems[-1]])
                if said := tuple(caption for one in of_one_image(text) if (caption := plain(one))):
                    self.used.add(file)
                    return said
        return ()

    def problems(self) -> list[Problem]:
        """What was noticed, in words."""
        unusable = [
            Problem(
                "caption_unreadable",
                f"The caption file {file} cannot be used: {why}.",
                "Fix or remove it; Help shows the formats of caption files.",
                why="Its images are trained on other captions, or none.",
            )
            for file, why in self.unusable.items()
        ]
        gone: dict[str, list[str]] = {}
        for name, (file, _) in self.lists.items():
            if name not in self.known:
                gone.setdefault(file, []).append(name)
        lost = [
            problem
            for file, names in gone.items()
            for problem in without_image(names, self.found.files[file], self.found.folder)
        ]
        guesses = [self._guess(encoding) for encoding, files in self.guessed.items() if files]
        return [*guesses, *unusable, *lost, *self._differ()]

    def _differ(self) -> list[Problem]:
        return [
            Problem(
                "caption_tables_differ",
                f"{first} and {second} have other captions for {len(names)} images (first: {names[0]}); those of "
                f"{first} are used.",
                "Remove the table that is out of date, or move it out of the folder.",
                why="Captions of an older table may describe the images less well.",
            )
            for (first, second), names in self.overruled.items()
        ]

    def _guess(self, encoding: str) -> Problem:
        files = self.guessed[encoding]
        those = "is not UTF-8; it was" if len(files) == 1 else "are not UTF-8; they were"
        return Problem(
            "caption_encoding",
            f"{listed(list(files), self.base)} {those} read as {encoding}.",
            "Check the accents, and save as UTF-8.",
            tuple(image for image in files.values() if image),
            "Letters that are read wrongly are learned as other words.",
        )

    def _text(self, file: Path, longest: int, image: Path | None = None) -> str:
        """A file's text; empty if there is none to be read."""
        try:
            with file.open("rb") as opened:
                data = opened.read(longest + 1)
        except OSError as error:
            self.unusable[file] = error.strerror or type(error).__name__
            return ""
        if len(data) > longest:
            self.unusable[file] = f"it holds more than {longest >> 20} MiB"
            return ""
        text, guess = decoded(data)
        if guess:
            self.guessed.setdefault(guess, {})[file] = image
        return text

    def _read_tables(self) -> None:
        """Keep what files for many images say; one of any other name counts if it names an image that is here."""
        others = [name for name in self.found.files if name not in self.used and self._may_be_table(name)]
        meant = [name for name in others if MEANT.fullmatch(PurePosixPath(name.lower()).name)]
        meant.sort(key=lambda name: [PurePosixPath(name.lower()).name != first for first in FIRST])
        unsure = sorted(set(others).difference(meant), key=lambda name: (name.lower().endswith(".txt"), name))
        for name in [*meant, *unsure[:TABLES]]:
            self._take(name, meant=name in meant)

    def _may_be_table(self, name: str) -> bool:
        """Whether a file may speak of several images: a.json beside a.png speaks of that one."""
        return is_table(name) and name.rpartition(".")[0] not in self.known

    def _take(self, table: str, *, meant: bool) -> None:
        """Keep what a file for many images says; entries that make no sense are passed over."""
        file = self.found.files[table]
        entries, wrong = _sorted_out(reader_of(table), self._text(file, LONGEST_LIST))
        named = [(self._image(PurePosixPath(table).parent, name), captions) for name, captions in entries]
        if not meant and not any(name in self.known for name, _ in named):
            self.unusable.pop(file, None)
            for files in self.guessed.values():
                files.pop(file, None)
            return
        self.used.add(table)
        for name, captions in named:
            self._keep(table, name, captions)
        if wrong:
            first = wrong[0] if len(wrong[0]) <= SAID else f"{wrong[0][:SAID]}…"
            self.unusable.setdefault(file, first if len(wrong) == 1 else f"{first}, and {len(wrong) - 1} more")

    def _image(self, folder: PurePosixPath, said: str) -> str:
        """The image that a table in this folder means: paths may be those of the computer where it was written."""
        path = said.replace("\\", "/")  # Windows writes the other slashes
        own = (folder / path).as_posix()
        own = own if own in self.known else self._folded.get(own.lower(), own)
        if own in self.known:
            return own
        parts = path.strip("/").split("/")
        moved = [(folder / "/".join(parts[place:])).as_posix() for place in range(1, len(parts))]
        if ABSOLUTE.match(path):
            return next((name for name in moved if name in self.known), own)
        here = (self.found.folder.absolute() / folder).name
        return moved[0] if len(moved) > 0 and parts[0] in (here, ".") and moved[0] in self.known else own

    def _keep(self, table: str, named: str, captions: list[str]) -> None:
        """Add captions of an image, unless an earlier table has some."""
        said = tuple(caption for caption in map(plain, captions) if caption)
        for image in self.known.get(named, [named]):
            first, known = self.lists.setdefault(image, (table, ()))
            if first == table or not known:
                self.lists[image] = table, tuple(dict.fromkeys((*known, *said)))
            elif said and known != said:
                self.overruled.setdefault((first, table), []).append(image)


def _sorted_out(read: Reader, text: str) -> tuple[list[tuple[str, list[str]]], list[str]]:
    """What a table says of images, and what makes no sense in it."""
    entries: list[tuple[str, list[str]]] = []
    wrong: list[str] = []
    try:
        for entry in read(text):
            match entry:
                case str():
                    wrong.append(entry)
                case name, str(caption):
                    entries.append((name, [caption]))
                case name, list(captions) if all(isinstance(one, str) for one in captions):
                    entries.append((name, captions))
                case name, other:
                    wrong.append(f"{name} has the caption {reprlib.repr(other)}, not a text or a list of texts")
    except NoTable as error:
        wrong.append(str(error))
    return entries, wrong
