"""A picture file as pixels: upright, sRGB, opaque, cropped to its bucket."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from trainer.contract.buckets import Crop
from trainer.contract.errors import UnreadableImage

SRGB = ImageCms.createProfile("sRGB")


def load_picture(path: Path) -> Image.Image:
    """The picture as a viewer shows it: RGB, EXIF orientation applied, on white where it is transparent.

    Raises:
        UnreadableImage: Not decodable, cut short, or larger than Pillow's limit against decompression bombs.
    """
    try:
        with Image.open(path) as file:
            file.load()
            picture = ImageOps.exif_transpose(file)
            return _opaque(_to_srgb(picture))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise UnreadableImage(path, str(error)) from None


def _to_srgb(picture: Image.Image) -> Image.Image:
    """Colours converted by the embedded ICC profile; 16-bit greys scaled to 8 bit."""
    if picture.mode in ("I;16", "I;16B", "I;16L", "I"):
        return Image.fromarray((np.asarray(picture).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    profile = picture.info.get("icc_profile")
    if not profile or picture.mode not in ("RGB", "RGBA", "CMYK", "L"):
        return picture
    target = "RGBA" if picture.mode == "RGBA" else "RGB"
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(picture, source, SRGB, outputMode=target)
    except (ImageCms.PyCMSError, OSError):
        return picture  # a broken profile: the plain numbers are the best there is
    return converted if converted is not None else picture


def _opaque(picture: Image.Image) -> Image.Image:
    """RGB, composed onto white."""
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        ground.alpha_composite(layer)
        return ground.convert("RGB")
    return picture.convert("RGB")


def to_pixels(picture: Image.Image, crop: Crop) -> Tensor:
    """Scaled and cropped, (3, H, W) float32 in [-1, 1]."""
    scaled = picture.resize((crop.scaled.width, crop.scaled.height), Image.Resampling.LANCZOS)
    right, bottom = crop.left + crop.bucket.width, crop.top + crop.bucket.height
    cut = scaled.crop((crop.left, crop.top, right, bottom))
    pixels = torch.from_numpy(np.array(cut, dtype=np.uint8)).permute(2, 0, 1)
    return pixels.float().div(127.5).sub(1.0)
