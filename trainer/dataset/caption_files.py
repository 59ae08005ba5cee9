"""The captions that lie in an image folder: a file beside each image, or one file for many."""

import json
import reprlib
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from trainer.dataset.encodings import decoded, plain
from trainer.dataset.folders import Listing
from trainer.dataset.problems import Problem, listed, without_image

SUFFIXES = (".txt", ".caption", ".cap")  # the first that says something is the image's caption
LONGEST = 1 << 20  # bytes of a caption; a file of more is something else
LONGEST_LIST = 1 << 25  # and of a list of them: a hundred thousand of 300 letters
SAID = 300  # letters of what is wrong with a list

Captions = tuple[str, ...]
Said = Iterator[tuple[str, Any] | str]  # an image and what is its caption, or what is wrong with an entry


def own_captions(found: Listing, names: Iterable[str]) -> tuple[dict[str, Captions], list[Problem]]:
    """Returns the captions of these images in the folder itself, where it has some, and what was noticed.

    An image's own file overrides the folder's captions.toml, which overrides its metadata.jsonl.
    """
    reader = _Reader(found)
    captions = {name: said for name in names if (said := reader.of(name))}
    return captions, reader.problems()


@dataclass
class _Reader:
    """Reads captions, and keeps what is wrong with their files."""

    found: Listing
    beside: dict[str, dict[str, Path]] = field(default_factory=dict)  # by the name without suffix, then by suffix
    lists: dict[str, tuple[Path, Captions]] = field(default_factory=dict)  # by image, with or without its suffix
    guessed: dict[str, dict[Path, Path | None]] = field(default_factory=dict)  # by encoding: files and their images
    unusable: dict[Path, str] = field(default_factory=dict)  # files that hold no caption, and why

    def __post_init__(self) -> None:
        for name, path in self.found.files.items():
            stem, _, ending = name.rpartition(".")
            if f".{ending.lower()}" in SUFFIXES:
                self.beside.setdefault(stem, {}).setdefault(f".{ending.lower()}", path)
        for file, entries in FOR_MANY.items():
            for name, path in self.found.files.items():
                if name.lower().endswith(file) and PurePosixPath(name).name.lower() == file:
                    self._take(PurePosixPath(name).parent, path, entries)

    def of(self, name: str) -> Captions:
        """An image's captions."""
        stem = name.rpartition(".")[0]
        files = self.beside.get(stem, {})
        for suffix in SUFFIXES:
            if suffix in files and (caption := plain(self._text(files[suffix], LONGEST, self.found.files[name]))):
                return (caption,)
        _, captions = self.lists.get(name) or self.lists.get(stem) or (None, ())
        return captions

    def problems(self) -> list[Problem]:
        """What was noticed, in words."""
        known = self.found.images.keys() | {name.rpartition(".")[0] for name in self.found.images}
        unusable = [
            Problem(
                "caption_unreadable",
                f"The caption file {file} cannot be used: {why}.",
                "Fix or remove it; Help shows the formats of caption files.",
                why="Its images are trained on other captions, or none.",
            )
            for file, why in self.unusable.items()
        ]
        gone: dict[Path, list[str]] = {}
        for name, (file, _) in self.lists.items():
            if name not in known:
                gone.setdefault(file, []).append(name)
        lost = [problem for file, names in gone.items() for problem in without_image(names, file, self.found.folder)]
        return [*map(self._guess, self.guessed), *unusable, *lost]

    def _guess(self, encoding: str) -> Problem:
        files = self.guessed[encoding]
        those = "is not UTF-8; it was" if len(files) == 1 else "are not UTF-8; they were"
        return Problem(
            "caption_encoding",
            f"{listed(list(files))} {those} read as {encoding}.",
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

    def _take(self, folder: PurePosixPath, file: Path, entries: Callable[[str], Said]) -> None:
        """Keep what a file for many images says; entries that make no sense are passed over."""
        wrong = []
        for entry in entries(self._text(file, LONGEST_LIST)):
            match entry:
                case str():
                    wrong.append(entry)
                case name, str(caption):
                    self._keep(file, folder / name, [caption])
                case name, list(captions) if all(isinstance(one, str) for one in captions):
                    self._keep(file, folder / name, captions)
                case name, other:
                    wrong.append(f"{name} has the caption {reprlib.repr(other)}, not a text or a list of texts")
        if wrong:
            first = wrong[0] if len(wrong[0]) <= SAID else f"{wrong[0][:SAID]}…"
            self.unusable[file] = first if len(wrong) == 1 else f"{first}, and {len(wrong) - 1} more"

    def _keep(self, file: Path, image: PurePosixPath, captions: list[str]) -> None:
        said = tuple(caption for caption in map(plain, captions) if caption)
        self.lists.setdefault(image.as_posix().replace("\\", "/"), (file, said))  # Windows writes the other slashes


def _of_toml(text: str) -> Said:
    """Entries such as `"a.png" = "a bear"` or `"a.png" = ["a bear", "a brown bear"]`."""
    try:
        yield from _flat(tomllib.loads(text), "")
    except (ValueError, RecursionError) as error:
        yield f"not TOML: {error}"


def _flat(table: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """A table's values; to TOML, an unquoted a.png is the entry png of a table a."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _of_lines(text: str) -> Said:
    """Lines such as `{"file_name": "a.png", "text": "a bear"}`, as Hugging Face datasets have them."""
    for number, line in enumerate(text.split("\n"), start=1):  # a caption may hold other separators of lines
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            name, keys = entry["file_name"], [key for key in ("text", "caption") if key in entry]
            yield from ((str(name), entry[key]) for key in keys[:1])
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            yield f"line {number} is no caption ({type(error).__name__}: {error})"


FOR_MANY = {"captions.toml": _of_toml, "metadata.jsonl": _of_lines}  # where an image has no file of its own
