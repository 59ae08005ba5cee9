"""The header of a safetensors file: what tensors it holds and where, read without trust and without the weights."""

import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from trainer.contract.units import size as in_words
from trainer.contract.wording import action
from trainer.models.errors import BaseModelMissing, NotABaseModel

FORMATS_LIMIT = 100_000_000  # bytes of header that the format allows
LARGEST = 32 << 20  # bytes of header read: SDXL's takes 0.4 MB, a thumbnail in the metadata a few more
MOST_COMMAS = 500_000  # bounds what parsing may allocate: every entry but the last has one, SDXL has 20,000
MOST_DIMENSIONS = 8
MOST_NUMBERS = 4096  # of a tensor whose values are read
LARGEST_NUMBER = 2**63
OPENING = 512  # bytes that show the kind of a file
BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32}
BITS |= {"U16": 16, "U8": 8, "BOOL": 8, "C64": 64, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8}
# The struct module's letters of the numbers that are read
LETTERS = {"F64": "d", "F32": "f", "F16": "e", "BF16": "f", "I64": "q", "I32": "i"}
LETTERS |= {"I16": "h", "I8": "b", "U64": "Q", "U32": "I", "U16": "H", "U8": "B"}
BITS |= {"F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4}

AGAIN = "Download or copy it again."
FULL_PRECISION = "Choose the same model in fp16, bf16 or fp32."
LOGGED_IN = "Download it again, logged in to the site it comes from."
UNPACK = "Unpack it and choose the .safetensors file in it."
SIGNATURES = (
    (b"GGUF", "it is a GGUF file, whose weights are quantized and cannot be trained on", FULL_PRECISION),
    (
        b"version https://git-lfs",
        "it is a Git LFS pointer instead of the file",
        'Run "git lfs pull" in its folder, or download the file from the model\'s page.',
    ),
    (b"<", "it is a web page, not a model", LOGGED_IN),
    (b"{", "it is a web site's message, not a model", LOGGED_IN),
    (b"7z\xbc\xaf", "it is a packed archive", UNPACK),
    (b"Rar!", "it is a packed archive", UNPACK),
    (b"\x1f\x8b", "it is a packed archive", UNPACK),
    (b"\x89PNG", "it is an image", "Choose the model's .safetensors file."),
    (b"\xff\xd8\xff", "it is an image", "Choose the model's .safetensors file."),
    (b"RIFF", "it is an image", "Choose the model's .safetensors file."),
)


class Entry(NamedTuple):
    """One tensor: number format, shape, and the bytes it takes, counted from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """A checked header: its tensors lie side by side and fill the file."""

    path: Path
    tensors: dict[str, Entry]
    metadata: dict[str, str]
    data_start: int

    @cached_property
    def _listing(self) -> str:
        return "\n".join(["", *self.tensors, ""])

    def has(self, pieces: str) -> bool:
        """Whether one of the pieces, parted by spaces, stands in a tensor's name; ^ marks its beginning, $ its end."""
        return any(piece in self._listing for piece in pieces.replace("^", "\n").replace("$", "\n").split(" "))


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn the system's refusal to read into one of our errors.

    Raises:
        NotABaseModel: What is read inside cannot be.
    """
    try:
        yield
    except OSError as error:
        raise NotABaseModel(path, f"it cannot be read ({error.strerror})", "Choose a file you may read.") from error


def read_header(path: Path) -> Header:
    """The header of a safetensors file, every claim of it checked against the file.

    Raises:
        BaseModelMissing: Nothing there.
        NotABaseModel: Not a safetensors file, or a broken one.
    """
    with readable(path):
        if not path.exists():
            raise BaseModelMissing(path=path)
        if not path.is_file():  # opening a pipe or a device could block forever
            raise NotABaseModel(path, "it is not a file", "Choose a .safetensors file or a model's folder.")
        with path.open("rb") as file:
            file_bytes = os.fstat(file.fileno()).st_size
            raw = _raw_header(path, file, file_bytes)
    start = 8 + len(raw)
    try:
        fields = _parsed(raw)
        metadata = _metadata(fields.pop("__metadata__", None))
        tensors = {name: _entry(value) for name, value in fields.items()}
        data_bytes = _side_by_side(tensors)
    except ValueError as error:
        raise NotABaseModel(path, f"its header is damaged: {error}", AGAIN) from None
    if start + data_bytes > file_bytes:
        there, whole = in_words(file_bytes), in_words(start + data_bytes)
        raise NotABaseModel(path, f"it is truncated: {there} of {whole}", AGAIN)
    if start + data_bytes < file_bytes:
        more = in_words(file_bytes - start - data_bytes)
        raise NotABaseModel(path, f"it is damaged: {more} follow its last tensor", AGAIN)
    return Header(path, tensors, metadata, start)


def read_numbers(header: Header, name: str) -> tuple[float, ...]:
    """The values of a small tensor; none where it is missing, large, or of a format other than floats and integers."""
    entry = header.tensors.get(name)
    if entry is None or entry.dtype not in LETTERS or prod(entry.shape) > MOST_NUMBERS:
        return ()
    with readable(header.path), header.path.open("rb") as file:
        file.seek(header.data_start + entry.begin)
        raw = file.read(entry.end - entry.begin)
    if entry.dtype == "BF16":  # the upper half of a float32
        raw = b"".join(b"\0\0" + raw[place : place + 2] for place in range(0, len(raw), 2))
    return tuple(float(number) for (number,) in struct.iter_unpack(f"<{LETTERS[entry.dtype]}", raw))


def _raw_header(path: Path, file: BinaryIO, file_bytes: int) -> bytes:
    """The bytes of the header, without the length before it; only what can be one is read."""
    opening = file.read(OPENING)
    if not opening:
        raise NotABaseModel(path, "it is empty (0 bytes)", AGAIN)
    length = int.from_bytes(opening[:8], "little")
    if opening[8:9] != b"{":
        raise NotABaseModel(path, *_what_opens(path, opening))
    if length > FORMATS_LIMIT:
        raise NotABaseModel(path, f"its header is damaged: it claims {in_words(length)}", AGAIN)
    if 8 + length > file_bytes:
        raise NotABaseModel(path, f"it is truncated inside its header, at {in_words(file_bytes)}", AGAIN)
    if length > LARGEST:
        raise NotABaseModel(path, f"its header takes {in_words(length)}, more than any model's", AGAIN)
    file.seek(8)
    return file.read(length)


def _what_opens(path: Path, opening: bytes) -> tuple[str, str]:
    """What a file that is no safetensors file seems to be, and what to do."""
    zipped = opening.startswith(b"PK\x03\x04")
    suffix = path.suffix.lower()
    if opening.startswith(b"\x80") or (zipped and (b"/data.pkl" in opening or suffix not in ("", ".zip"))):
        convert = f"Choose its .safetensors version; or, if it is a base model, {action('convert', path)}"
        return "it is a pickled checkpoint (.ckpt, .pt, .bin), which could run a program when it is opened", convert
    if zipped:
        return "it is a packed archive", UNPACK
    if not any(opening):
        return "it begins with zeros, like an unfinished download", AGAIN
    text = opening.removeprefix(b"\xef\xbb\xbf").lstrip()
    for signature, seen, hint in SIGNATURES:
        if text.startswith(signature):
            return seen, hint
    return "it does not begin like a safetensors file", "Choose a .safetensors file or a model's folder."


def _parsed(raw: bytes) -> dict[str, Any]:
    """The header's JSON object; it begins with a brace, so nothing else can come out."""
    if raw.count(b",") > MOST_COMMAS:
        raise ValueError("it lists more than any model holds")
    try:
        fields: dict[str, Any] = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("it is not JSON") from None
    return fields


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object without repeated names: readers differ in which of two they take."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a name occurs twice")
    return fields


def _metadata(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError("its metadata is not text")
    return value


def _entry(value: object) -> Entry:
    """One tensor's claims, checked against each other."""
    fields = value if isinstance(value, dict) else {}
    dtype, shape, place = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not isinstance(shape, list) or not isinstance(place, list) or len(place) != 2 or len(shape) > MOST_DIMENSIONS:
        raise ValueError("an entry is not a tensor's")
    if not all(type(number) is int and 0 <= number < LARGEST_NUMBER for number in [*shape, *place]):
        raise ValueError("a size or offset is not a number of bytes")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError("a tensor is of an unknown number format")
    if prod(shape) * BITS[dtype] != 8 * (place[1] - place[0]):
        raise ValueError("a tensor's size and offsets do not match")
    return Entry(dtype, tuple(shape), place[0], place[1])


def _side_by_side(tensors: dict[str, Entry]) -> int:
    """The bytes that all tensors take, one after the other without overlap or gap, as the format asks."""
    reached = 0
    for entry in sorted(tensors.values(), key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != reached:
            raise ValueError(f"its tensors {'overlap' if entry.begin < reached else 'leave a gap'}")
        reached = entry.end
    return reached
