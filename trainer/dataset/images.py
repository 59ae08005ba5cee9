"""A picture file as it is trained on: upright, sRGB, opaque, scaled and cut. What the page shows of it is this, too."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from PIL import Image, ImageCms

from trainer.dataset.buckets import Crop, Size
from trainer.dataset.errors import UnreadableImage
from trainer.dataset.formats import SIDEWAYS, UNREADABLE, open_picture, orientation

SRGB = ImageCms.createProfile("sRGB")
LAB = ImageCms.createProfile("LAB")
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ROUNDED_PX = 2  # by which a mask's sides may differ from its picture's scaled, for they are whole numbers
SAME_SHAPE = 0.02  # or by how much its aspect ratio may, as a logarithm
GAP = 2.0  # a picture decoded or averaged down to at least twice the size wished loses nothing that scaling would keep


@dataclass(frozen=True)
class Picture:
    """Colours in RGB, and how opaque they are (mode L) where the file says that some are not."""

    colour: Image.Image
    alpha: Image.Image | None
    turned: bool = False  # or mirrored, as the file asked for

    def on(self, background: str) -> Image.Image:
        """The picture before a plain colour, RGB."""
        if self.alpha is None:
            return self.colour
        return Image.composite(self.colour, Image.new("RGB", self.colour.size, background), self.alpha)


def load_picture(path: Path, background: str = "white") -> Image.Image:
    """The picture as a viewer shows it: RGB, upright, before a plain colour where it is transparent.

    Raises:
        UnreadableImage: Not decodable, cut short, or larger than Pillow's limit against decompression bombs.
    """
    return read_picture(path).on(background)


def read_picture(path: Path, content: bytes | None = None, covering: Size | None = None) -> Picture:
    """The first picture in a file, upright and in sRGB.

    Args:
        path: The file.
        content: Its bytes, if they were read already.
        covering: The size it will be scaled to, if that is known: a JPEG far larger is then decoded at a fraction of
            its own size, which is several times as fast.

    Raises:
        UnreadableImage: Not decodable, cut short, or larger than Pillow's limit against decompression bombs.
    """
    try:
        with open_picture(path if content is None else io.BytesIO(content)) as file:
            if covering and file.format == "JPEG":
                _decode_less(file, covering)
            file.load()
            turn = TURNS.get(orientation(file))
            upright = file if turn is None else file.transpose(turn)
            return replace(_in_srgb(upright), turned=turn is not None)
    except UNREADABLE as error:
        raise UnreadableImage(path, str(error) or type(error).__name__) from None


def read_mask(path: Path, width: int, height: int, content: bytes | None = None) -> Image.Image:
    """The mask in a file, grey: white is learnt, and what is transparent is not.

    Args:
        path: The file.
        width: Of its picture, px.
        height: Of its picture, px.
        content: Its bytes, if they were read already.

    Raises:
        UnreadableImage: Not decodable, or of another shape than its picture.
    """
    grey = read_picture(path, content).on("black").convert("L")
    if not same_shape(*grey.size, width, height):
        shapes = f"{grey.width} x {grey.height} px, of a picture of {width} x {height}"
        raise UnreadableImage(path, f"a mask of {shapes}, is not of its shape")
    return grey


def same_shape(width: int, height: int, picture_width: int, picture_height: int) -> bool:
    """Whether a mask is its picture scaled to whole numbers of px, or as good as that."""
    off = min(
        abs(width * picture_height / picture_width - height), abs(height * picture_width / picture_height - width)
    )
    return off <= ROUNDED_PX or abs(math.log(width / height * picture_height / picture_width)) <= SAME_SHAPE


def cut(picture: Image.Image, crop: Crop, mirrored: bool = False) -> Image.Image:
    """The part of a picture that is trained, at the size it is trained at, mirrored or not."""
    scaled = picture.resize((crop.scaled.width, crop.scaled.height), Image.Resampling.LANCZOS, reducing_gap=GAP)
    right, bottom = crop.left + crop.bucket.width, crop.top + crop.bucket.height
    made = scaled.crop((crop.left, crop.top, right, bottom))
    return made.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else made


def _decode_less(file: Image.Image, covering: Size) -> None:
    """Let a JPEG be decoded at a half, a quarter or an eighth where that is still large enough."""
    width, height = covering.width, covering.height
    if orientation(file) in SIDEWAYS:
        width, height = height, width
    file.draft(None, (round(width * GAP), round(height * GAP)))


def _in_srgb(file: Image.Image) -> Picture:
    """Colours and opacity of any mode that Pillow has."""
    profile = file.info.get("icc_profile")
    picture, alpha = _eight_bits(file), None
    if picture.has_transparency_data:
        layers = picture.convert("RGBA")
        lowest, _ = _range(layers.getchannel("A"))
        alpha = layers.getchannel("A") if lowest < 255 else None
        picture = picture.convert("L") if picture.mode == "LA" else layers.convert("RGB")
    if picture.mode == "LAB":
        picture = ImageCms.profileToProfile(picture, LAB, SRGB, outputMode="RGB") or picture
    elif picture.mode not in ("RGB", "L", "CMYK"):
        picture = picture.convert("L" if picture.mode in ("1", "La") else "RGB")
    if profile:
        picture = _by_profile(picture, profile)
    if picture.mode != "RGB":  # a copy of large ones takes long
        picture = picture.convert("RGB")
    picture.info.clear()  # a comment would go along into every copy
    return Picture(picture, alpha)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Greys of 16 and 32 bits, and floating point numbers from 0 to 1, as 8 bits."""
    if picture.mode == "F":
        _, highest = _range(picture)
        return picture.point(lambda grey: grey * 255.0).convert("L") if highest <= 1 else picture.convert("L")
    if not picture.mode.startswith("I"):
        return picture
    whole = picture.convert("I")
    _, highest = _range(whole)
    bits = 16 if picture.mode != "I" or 2**8 <= highest < 2**16 else 8 if highest < 2**8 else 32
    scale = 2.0 ** (8 - bits)
    return whole.point(lambda grey: grey * scale).convert("L")


def _range(grey: Image.Image) -> tuple[float, float]:
    """Lowest and highest value of a picture of one channel."""
    return cast("tuple[float, float]", grey.getextrema())


def _by_profile(picture: Image.Image, profile: bytes) -> Image.Image:
    """Colours converted by the embedded ICC profile."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(picture, source, SRGB, outputMode="RGB") or picture
    except (ImageCms.PyCMSError, OSError):
        return picture  # a broken profile, or one of other colours: the plain numbers are the best there is
