"""Which files are images, and how large one is: read from its header alone."""

import io
import struct
import warnings
import zlib
from contextlib import suppress
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from trainer.dataset.errors import UnreadableImage

# By the names that Pillow gives them; it never guesses another, since some of those start programs
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
# Everything that Pillow may raise over a damaged image
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
PNG_START = 33  # bytes of its signature and its header
PNG_CHUNK = struct.Struct(">I4s")  # bytes of its data, kind; a checksum of four bytes follows the data
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"eXIf")
PNG_LONGEST = 1 << 26  # bytes of such a chunk; of more it is no text
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


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


def open_image(source: Path | BinaryIO) -> Image.Image:
    """An image whose header was read: every file that may come from elsewhere is opened here."""
    return Image.open(source, formats=readable_formats())


def exif_of(image: Image.Image) -> Image.Exif:
    """The EXIF data read so far; a PNG's own method would decode the image to look for some behind its pixels."""
    return Image.Image.getexif(image) if image.format == "PNG" else image.getexif()


def orientation(image: Image.Image) -> int:
    """How the file says that the image must be turned; 1, as it is, where its EXIF data is damaged."""
    try:
        return int(exif_of(image).get(ORIENTATION_TAG, 1))
    except UNREADABLE:
        return 1


def read_to_the_end(image: Image.Image, file: BinaryIO) -> None:
    """Add what a PNG says of itself behind its pixels, without decoding them."""
    if image.format == "PNG" and (behind := _behind_pixels(file)):
        with suppress(*UNREADABLE):  # what is damaged there says nothing
            image.info.update(open_image(io.BytesIO(behind)).info)


def version_of(path: Path) -> str:
    """Returns what changes with a file's content: its length, its times, and its inode, should all else be set back.

    Raises:
        OSError: It is not there, or may not be looked at.
    """
    seen = path.stat()
    return f"{seen.st_size} {seen.st_mtime_ns} {seen.st_ctime_ns} {seen.st_ino}"


def image_size(path: Path) -> tuple[int, int]:
    """Returns an image's width and height in px, as a viewer shows it; cached until the file changes.

    Raises:
        UnreadableImage: Its header cannot be read, or has more pixels than can be decoded safely.
    """
    try:
        width, height = _size_of_version(path, version_of(path))
    except UNREADABLE as error:
        raise UnreadableImage(path, cause_of(path, error)) from None
    if min(width, height) < 1:
        raise UnreadableImage(path, f"its size is {width} x {height} px")
    return width, height


def cause_of(path: Path, error: BaseException) -> str:
    """Returns what is wrong with an image, in words without its name so that images can be grouped by them."""
    suffix = path.suffix.lower()
    wanted = next((name for name, suffixes in FORMATS.items() if suffix in suffixes), "")
    if wanted in PLUGINS and wanted not in readable_formats():
        return f"{suffix} needs the package {PLUGINS[wanted][1]}, which is not installed"
    if isinstance(error, UnidentifiedImageError):  # its own words hold the path
        return "empty file" if path.is_file() and path.stat().st_size == 0 else "unsupported format"
    said = error.strerror if isinstance(error, OSError) else None  # which leaves out number and path
    return said or str(error) or type(error).__name__


@lru_cache(maxsize=100_000)  # a page looks at its folder again after every change
def _size_of_version(path: Path, _version: str) -> tuple[int, int]:
    """Reads an image's size from its header; the version keys the cache."""
    with warnings.catch_warnings(), path.open("rb") as file:
        warnings.simplefilter("ignore")  # of what is odd about it but can be read
        with open_image(file) as image:
            width, height = image.size
            read_to_the_end(image, file)
            sideways = orientation(image) in SIDEWAYS
    return (height, width) if sideways else (width, height)


def _behind_pixels(file: BinaryIO) -> bytes:
    """Returns a PNG of the text and EXIF chunks behind the pixels of this one; empty where there are none."""
    file.seek(0)
    start = file.read(PNG_START)
    texts: list[bytes] = []
    after_pixels = False
    while len(head := file.read(PNG_CHUNK.size)) == PNG_CHUNK.size:
        length, kind = PNG_CHUNK.unpack(head)
        if kind == b"IEND":
            break
        after_pixels = after_pixels or kind == b"IDAT"
        if after_pixels and kind in PNG_TEXTS and length <= PNG_LONGEST:
            texts.append(head + file.read(length + 4))
        else:
            file.seek(length + 4, 1)
    return b"".join([start, *texts, PNG_END]) if texts else b""
