"""Captions of many images in one file, as people and other programs write them: entries of an image and its caption."""

import csv
import io
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from trainer.dataset.formats import SUFFIXES

Said = Iterator[tuple[str, Any] | str]  # an image and what is its caption, or what is wrong with an entry
Reader = Callable[[str], Said]

IMAGE = ("file_name", "filename", "file", "image", "image_file", "image_name", "image_path", "image_key", "img", "path")
CAPTION = ("text", "caption", "captions", "prompt")  # the first that is there counts, and tags are added to it
TAGS = "tags"
DELIMITERS = ",;\t|:"
NUMBERED = re.compile(r"#\d$")  # Flickr's lists number the captions of an image: a.jpg#0, a.jpg#1
# The names of tables that are surely meant; what is wrong with them is told
MEANT = re.compile(r"(?:captions?|metadata|meta_(?:cap|cap_dd|clean|lat|tags?))\.(?:toml|jsonl|json|csv|tsv)")
FIRST = ("captions.toml", "metadata.jsonl")  # where several name an image, these count first, then by name


class NoTable(ValueError):
    """A file that holds no captions of images."""


def of_toml(text: str) -> Said:
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


def of_lines(text: str) -> Said:
    """Lines such as `{"file_name": "a.png", "text": "a bear"}`, as Hugging Face datasets have them."""
    for number, line in enumerate(text.split("\n"), start=1):  # a caption may hold other separators of lines
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            name, caption = _named(entry), _caption(entry)
            if caption is not None:
                yield name, caption
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            yield f"line {number} is no caption ({type(error).__name__}: {error})"


def of_json(text: str) -> Said:
    """Entries of kohya's meta_cap.json, of a list of objects, of COCO's captions, or of names and captions.

    Raises:
        NoTable: It is another kind of JSON.
    """
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        yield f"not JSON: {error}"
        return
    match whole:
        case {"images": list(images), "annotations": list(annotations)}:
            names = {one["id"]: one["file_name"] for one in images if _has(one, "id", "file_name")}
            pairs = [(names.get(one["image_id"]), one["caption"]) for one in annotations if _has(one, "caption")]
            yield from ((str(name), caption) for name, caption in pairs if name is not None)
        case dict():
            for name, entry in whole.items():
                caption = _caption(entry) if isinstance(entry, dict) else entry
                if caption is not None:
                    yield name, caption
        case [dict(), *_]:
            yield from _of_objects(whole)
        case _:
            raise NoTable("it is neither a list of images nor an object with their names")


def of_one_image(text: str) -> list[str]:
    """The captions in the JSON file of a single image, such as `{"caption": "a bear"}`; none if it has none."""
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return []
    said = _caption(entry) if isinstance(entry, dict) else None
    captions = [said] if isinstance(said, str) else said
    return captions if isinstance(captions, list) and all(isinstance(one, str) for one in captions) else []


def _has(entry: object, *keys: str) -> bool:
    """Whether this is an object with these keys, whose values identify something."""
    return isinstance(entry, dict) and all(isinstance(entry.get(key), str | int) for key in keys)


def _of_objects(entries: Sequence[Any]) -> Said:
    for number, entry in enumerate(entries, start=1):
        try:
            name, caption = _named(entry), _caption(entry)
        except (TypeError, LookupError) as error:
            yield f"entry {number} is no caption ({type(error).__name__}: {error})"
        else:
            if caption is not None:
                yield name, caption


def _named(entry: Mapping[str, Any]) -> str:
    """The image that an object is about."""
    return str(next((entry[key] for key in IMAGE if key in entry), None) or entry["file_name"])


def _caption(entry: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any JSON, checked by whoever keeps it
    """What an object says of its image: a text, or a list of several; None if it says nothing."""
    said, tags = next((entry[key] for key in CAPTION if entry.get(key) is not None), None), entry.get(TAGS)
    if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags):
        tags = ", ".join(tags)
    return f"{said}, {tags}" if isinstance(said, str) and said and isinstance(tags, str) and tags else said or tags


def of_rows(text: str) -> Said:
    """Rows such as `a.png,a bear`, separated by comma, semicolon, tab, bar or colon; the first may name the columns.

    A caption in the last column may have commas without being quoted.

    Raises:
        NoTable: No column holds images, or none their captions.
    """
    delimiter, image, captions, columns = _columns(text)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    headed = columns > 0
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield f"line {rows.line_num} cannot be read: {error}"
            continue
        if headed or not any(map(str.strip, row)):
            headed = False
            continue
        last = max(captions)
        cells = [*row[:last], delimiter.join(row[last:])] if columns in (0, last + 1) else row
        if max(image, last) >= len(row) or 0 < columns < len(cells):
            yield f"line {rows.line_num} has {len(row)} values, not {columns or 2}"
            continue
        said = (cells[place].strip() for place in captions)
        yield NUMBERED.sub("", cells[image].strip()), ", ".join(one for one in said if one)


def _columns(text: str) -> tuple[str, int, list[int], int]:
    """The delimiter, the places of image and captions in a row, and how many columns have a name; 0: none has one."""
    start = next((line for line in text.splitlines() if line.strip()), "")
    for delimiter in DELIMITERS:
        try:
            cells = [cell.strip() for cell in next(csv.reader([start], delimiter=delimiter))]
        except (csv.Error, StopIteration):
            continue
        names = [cell.lower().replace(" ", "_") for cell in cells]
        image = next((names.index(key) for key in IMAGE if key in names), None)
        said = next(([names.index(key)] for key in CAPTION if key in names), [])
        said += [names.index(TAGS)] if TAGS in names else []
        if image is not None and said:
            return delimiter, image, said, len(names)
        if len(cells) > 1 and NUMBERED.sub("", names[0]).endswith(SUFFIXES):
            return delimiter, 0, [1], 0
    raise NoTable("it has no columns called image and caption")


READERS: dict[str, Reader] = {
    ".toml": of_toml,
    ".jsonl": of_lines,
    ".json": of_json,
    ".csv": of_rows,
    ".tsv": of_rows,
    ".txt": of_rows,
}


def is_table(name: str) -> bool:
    """Whether a file of this name may be a table; of TOML files only captions.toml."""
    path = PurePosixPath(name.lower())
    return path.suffix in READERS and (path.suffix != ".toml" or path.name == FIRST[0])


def reader_of(name: str) -> Reader:
    """Returns what reads a table of this name."""
    return READERS[PurePosixPath(name.lower()).suffix]
