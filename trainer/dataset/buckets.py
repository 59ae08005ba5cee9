"""Bucket and crop geometry, and the arithmetic from views to steps. Pure functions of numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from trainer.contract.settings.dataset import DatasetSettings

LONGEST = 4  # times the short side: no bucket is longer
SMALLEST = 2  # an image is shown at no less than the resolution's side divided by this, or the area of that square


class Size(NamedTuple):
    """Width and height in px."""

    width: int
    height: int


@dataclass(frozen=True)
class Crop:
    """Scale an image to `scaled`, then cut `bucket` out of it at (left, top), all in px."""

    scaled: Size
    left: int
    top: int
    bucket: Size


def buckets(resolution_px: int, step_px: int) -> list[Size]:
    """Sizes in multiples of `step_px`, of at most the resolution's area, with sides from half to double."""
    side = max(resolution_px // step_px, 1) * step_px
    area, shortest, longest = side**2, side // 2, 2 * side
    sizes: set[Size] = set()
    for width in range(step_px, longest + 1, step_px):
        height = min(area // width // step_px * step_px, longest)
        if min(width, height) >= shortest:
            sizes |= {Size(width, height), Size(height, width)}
    return sorted(sizes, key=lambda size: (size.width / size.height, size.width))


def nearest_bucket(width: int, height: int, sizes: Sequence[Size]) -> Size:
    """The bucket nearest in aspect ratio; of equals, the largest."""
    ratio = math.log(width / height)
    return min(sizes, key=lambda s: (round(abs(math.log(s.width / s.height) - ratio), 9), -s.width * s.height))


@lru_cache(maxsize=10_000)  # images of one camera have one size
def bucket_for(width: int, height: int, resolution_px: int, step_px: int, upscale: bool = False) -> Size:
    """The bucket that an image is shown in: the nearest in aspect ratio, if it need not be enlarged for it.

    A smaller image has a bucket of its own, as large as the grid lets it be; one that fills less than a quarter of
    the area is enlarged to that. With `upscale` every image is enlarged to the whole.
    """
    nearest = nearest_bucket(width, height, buckets(resolution_px, step_px))
    if upscale or (nearest.width <= width and nearest.height <= height):
        return nearest
    side = max(resolution_px // step_px, 1) * step_px
    least = max(side // SMALLEST // step_px, 1) * step_px
    short, long = sorted((width // step_px * step_px, height // step_px * step_px))
    if short < max(least // 2, step_px) or short * long < least**2:
        return nearest_bucket(width, height, buckets(least, step_px))
    long = min(long, LONGEST * short, side**2 // short // step_px * step_px)
    return Size(long, short) if width > height else Size(short, long)


def crop_to(width: int, height: int, bucket: Size, focus: tuple[float, float] | None = None) -> Crop:
    """Scale so that the bucket is just covered, and cut around the focus (shares of width and height) or the centre."""
    scale = max(bucket.width / width, bucket.height / height)
    scaled = Size(max(round(width * scale), bucket.width), max(round(height * scale), bucket.height))
    across, down = focus or (0.5, 0.5)
    left = math.floor(across * scaled.width - bucket.width / 2)
    top = math.floor(down * scaled.height - bucket.height / 2)
    spare = Size(scaled.width - bucket.width, scaled.height - bucket.height)
    return Crop(scaled, min(max(left, 0), spare.width), min(max(top, 0), spare.height), bucket)


def crops(
    width: int, height: int, focus: tuple[float, float] | None, step_px: int, rules: DatasetSettings
) -> list[Crop]:
    """How an image is scaled and cut for a model's grid of `step_px`, at each of the sizes it is shown at in turn."""
    sides = (rules.resolution, *rules.further_resolutions)
    sizes = [bucket_for(width, height, side, step_px, rules.upscale) for side in sides]
    return [crop_to(width, height, size, focus) for size in sizes]


def grid_step(vae_levels: int, unet_levels: int) -> int:
    """Sides of buckets are multiples of so many px: each level but the last halves what it is given."""
    return int(2 ** (vae_levels - 1) * 2 ** (unet_levels - 1))
