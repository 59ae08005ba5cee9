"""An image file as it is trained on: upright, sRGB, opaque, scaled and cut. What the page shows of it is this, too."""

import io
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from PIL import Image, ImageCms

from trainer.dataset.buckets import Crop, Size
from trainer.dataset.errors import UnreadableImage
from trainer.dataset.formats import SIDEWAYS, UNREADABLE, cause_of, open_image, orientation

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
ROUNDED_PX = 2  # by which a mask's sides may differ from its image's scaled, for they are whole numbers
SAME_SHAPE = 0.02  # or by how much its aspect ratio may, as a logarithm
LATENT_PX = 8  # of the side of a latent in Stable Diffusion
DARK = 8  # of 255: where no latent is brighter, a mask is black to who looks at it
GAP = 2.0  # an image decoded or averaged down to at least twice the target size loses nothing that scaling would keep


@dataclass(frozen=True)
class LoadedImage:
    """Colors in RGB, and how opaque they are (mode L) where the file says that some are not."""

    color: Image.Image
    alpha: Image.Image | None
    turned: bool = False  # or mirrored, as the file asked for

    def on(self, background: str) -> Image.Image:
        """The image before a plain color, RGB."""
        if self.alpha is None:
            return self.color
        return Image.composite(self.color, Image.new("RGB", self.color.size, background), self.alpha)


def load_image(path: Path, background: str = "white") -> Image.Image:
    """The image as a viewer shows it: RGB, upright, before a plain color where it is transparent.

    Raises:
        UnreadableImage: Not decodable, truncated, or larger than Pillow's limit against decompression bombs.
    """
    return read_image(path).on(background)


def read_image(path: Path, content: bytes | None = None, covering: Size | None = None) -> LoadedImage:
    """The first image in a file, upright and in sRGB.

    Args:
        path: The file.
        content: Its bytes, if they were read already.
        covering: The size it will be scaled to, if that is known: a JPEG far larger is then decoded at a fraction of
            its own size, which is several times as fast.

    Raises:
        UnreadableImage: Not decodable, truncated, or larger than Pillow's limit against decompression bombs.
    """
    try:
        with open_image(path if content is None else io.BytesIO(content)) as file:
            if covering and file.format == "JPEG":
                _decode_less(file, covering)
            file.load()
            turn = TURNS.get(orientation(file))
            upright = file if turn is None else file.transpose(turn)
            return replace(_in_srgb(upright), turned=turn is not None)
    except UNREADABLE as error:
        raise UnreadableImage(path, cause_of(path, error)) from None


def read_mask(path: Path, width: int, height: int, content: bytes | None = None) -> Image.Image:
    """The mask in a file, gray: white is learned, and what is transparent is not.

    Args:
        path: The file.
        width: Of its image, px.
        height: Of its image, px.
        content: Its bytes, if they were read already.

    Raises:
        UnreadableImage: Not decodable, or of another shape than its image.
    """
    gray = read_image(path, content).on("black").convert("L")
    if not same_shape(*gray.size, width, height):
        shapes = f"{gray.width} x {gray.height} px, of an image of {width} x {height}"
        raise UnreadableImage(path, f"a mask of {shapes}, is not of its shape")
    return gray


def same_shape(width: int, height: int, image_width: int, image_height: int) -> bool:
    """Whether a mask is its image scaled to whole numbers of px, or as good as that."""
    off = min(abs(width * image_height / image_width - height), abs(height * image_width / image_height - width))
    return off <= ROUNDED_PX or abs(math.log(width / height * image_height / image_width)) <= SAME_SHAPE


def leaves_nothing(mask: Image.Image) -> bool:
    """Whether a mask (mode L), as it is cut and averaged over latents, shows nothing that could be learned."""
    _, brightest = _range(mask)
    return brightest < DARK


def cut(image: Image.Image, crop: Crop, mirrored: bool = False) -> Image.Image:
    """The part of an image that is trained, at the size it is trained at, mirrored or not."""
    scaled = image.resize((crop.scaled.width, crop.scaled.height), Image.Resampling.LANCZOS, reducing_gap=GAP)
    right, bottom = crop.left + crop.bucket.width, crop.top + crop.bucket.height
    made = scaled.crop((crop.left, crop.top, right, bottom))
    return made.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else made


def _decode_less(file: Image.Image, covering: Size) -> None:
    """Let a JPEG be decoded at a half, a quarter or an eighth where that is still large enough."""
    width, height = covering.width, covering.height
    if orientation(file) in SIDEWAYS:
        width, height = height, width
    file.draft(None, (round(width * GAP), round(height * GAP)))


def _in_srgb(file: Image.Image) -> LoadedImage:
    """Colors and opacity of any mode that Pillow has."""
    profile = file.info.get("icc_profile")
    image, alpha = _eight_bits(file), None
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        lowest, _ = _range(layers.getchannel("A"))
        alpha = layers.getchannel("A") if lowest < 255 else None
        image = image.convert("L") if image.mode == "LA" else layers.convert("RGB")
    if image.mode == "LAB":
        image = ImageCms.profileToProfile(image, LAB, SRGB, outputMode="RGB") or image
    elif image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("L" if image.mode in ("1", "La") else "RGB")
    if profile:
        image = _by_profile(image, profile)
    if image.mode != "RGB":  # a copy of large ones takes long
        image = image.convert("RGB")
    image.info.clear()  # a comment would go along into every copy
    return LoadedImage(image, alpha)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grays of 16 and 32 bits, and floating point numbers from 0 to 1, as 8 bits."""
    if image.mode == "F":
        _, highest = _range(image)
        return image.point(lambda gray: gray * 255.0).convert("L") if highest <= 1 else image.convert("L")
    if not image.mode.startswith("I"):
        return image
    whole = image.convert("I")
    _, highest = _range(whole)
    bits = 16 if image.mode != "I" or 2**8 <= highest < 2**16 else 8 if highest < 2**8 else 32
    scale = 2.0 ** (8 - bits)
    return whole.point(lambda gray: gray * scale).convert("L")


def _range(gray: Image.Image) -> tuple[float, float]:
    """Lowest and highest value of an image of one channel."""
    return cast("tuple[float, float]", gray.getextrema())


def _by_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """Colors converted by the embedded ICC profile."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, source, SRGB, outputMode="RGB") or image
    except (ImageCms.PyCMSError, OSError):
        return image  # a broken profile, or one of other colors: the plain numbers are the best there is
