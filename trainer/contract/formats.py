"""Which files are pictures, and how large one is: read from its header alone."""

from __future__ import annotations

import struct
import warnings
import zlib
from contextlib import suppress
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from trainer.contract.errors import UnreadableImage

# Formats by the names that Pillow gives them: it is never let guess, for some of the others start programs
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif"),
    "JXL": (".jxl",),
}
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
PLUGINS = {"HEIF": ("pillow_heif", "pillow-heif"), "JXL": ("pillow_jxl", "pillow-jxl-plugin")}  # module, package
# Everything that Pillow may raise over a damaged picture
UNREADABLE: tuple[type[BaseException], ...] = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    EOFError,
)
UNREADABLE += (RuntimeError, MemoryError, AssertionError, struct.error, zlib.error, Image.DecompressionBombError)
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
ORIENTATION_TAG = 0x0112
PNG_CHUNK = struct.Struct(">I4s")  # bytes of its data, kind


@cache
def readable_formats() -> tuple[str, ...]:
    """Those of the formats that can be opened here, as `Image.open` wants them."""
    Image.init()
    for module, _ in PLUGINS.values():
        with suppress(ImportError):  # they are the user's to install
            register = getattr(import_module(module), "register_heif_opener", None)
            if register is not None:
                register()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def picture_size(path: Path) -> tuple[int, int]:
    """A picture's width and height in px, as a viewer shows it; remembered until the file changes.

    Raises:
        UnreadableImage: Its header cannot be read, or tells of more pixels than can be decoded safely.
    """
    try:
        seen = path.stat()
        width, height = _size_of_version(path, seen.st_mtime_ns, seen.st_size)
    except UNREADABLE as error:
        raise UnreadableImage(path, _cause(path, error)) from None
    if min(width, height) < 1:
        raise UnreadableImage(path, f"it is {width} x {height} px large")
    return width, height


def _cause(path: Path, error: BaseException) -> str:
    """What is wrong with a picture, in words that are the same for all pictures of which it is true."""
    suffix = path.suffix.lower()
    wanted = next((name for name, suffixes in FORMATS.items() if suffix in suffixes), "")
    if wanted in PLUGINS and wanted not in readable_formats():
        return f"{suffix} takes the package {PLUGINS[wanted][1]}, which is not installed"
    if isinstance(error, UnidentifiedImageError):  # its own words hold the path
        return "it is empty" if path.stat().st_size == 0 else "it is none of the formats that are read here"
    return str(error) or type(error).__name__


@lru_cache(maxsize=100_000)  # a page looks at its folder again after every change
def _size_of_version(path: Path, _changed: int, _bytes: int) -> tuple[int, int]:
    """The same, read from the file."""
    with warnings.catch_warnings(), path.open("rb") as file:
        warnings.simplefilter("ignore")  # of what is odd about it but can be read
        with Image.open(file, formats=readable_formats()) as picture:
            width, height = picture.size
            sideways = _orientation(picture, file) in SIDEWAYS
    return (height, width) if sideways else (width, height)


def _orientation(picture: Image.Image, file: BinaryIO) -> int:
    """How the file says that the picture must be turned; 1, as it is, where its EXIF data is damaged."""
    short = picture.format == "PNG" and "exif" not in picture.info and not _says_more_at_its_end(file)
    try:
        exif = Image.Image.getexif(picture) if short else picture.getexif()  # a PNG's own would decode all of it
        return int(exif.get(ORIENTATION_TAG, 1))
    except UNREADABLE:
        return 1


def _says_more_at_its_end(file: BinaryIO) -> bool:
    """Whether a PNG has other chunks than its end after the pixels: there too it may tell how it is turned."""
    file.seek(8)
    after_pixels = False
    while len(head := file.read(PNG_CHUNK.size)) == PNG_CHUNK.size:
        length, kind = PNG_CHUNK.unpack(head)
        if kind == b"IEND":
            return False
        if kind != b"IDAT" and after_pixels:
            return True
        after_pixels = after_pixels or kind == b"IDAT"
        file.seek(length + 4, 1)  # data and checksum
    return False
