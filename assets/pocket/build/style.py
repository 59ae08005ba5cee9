"""How far images have gone from one drawing style towards another, whatever they show.

Histograms of an image's inked pixels at two sizes (how edges, darkness and saturation are distributed), projected onto
the axis that best separates the style's images from the base's images of the same content (Fisher's linear
discriminant). Every style has an axis of its own: axes fitted on a few styles are blind to the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from assets.pocket.build.common import PICTURE_PX

Floats = NDArray[np.float32]
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
EDGE_BINS = [0, 0.004, 0.01, 0.02, 0.035, 0.06, 0.1, 0.15, 0.25, 0.4, 0.6, 1.01]
DARK_BINS = [0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9, 1.01]
SATURATION_BINS = [0, 0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 1.01]
BRIGHT_BINS = [0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.97, 1.01]
RIDGE = 1.0  # of the mean variance: some forty images cannot show 338 variances


def histograms(picture: Image.Image) -> Floats:
    """Square-rooted shares, (338,) float32, of an image scaled to 64 px."""
    small = picture.convert("RGB").resize((PICTURE_PX, PICTURE_PX), Image.Resampling.LANCZOS)
    pixels = np.asarray(small, dtype=np.float32) / 255
    coarse = pixels.reshape(PICTURE_PX // 2, 2, PICTURE_PX // 2, 2, 3).mean(axis=(1, 3))
    return np.concatenate([_histograms(pixels), _histograms(coarse)]).astype(np.float32)


def _histograms(pixels: Floats) -> Floats:
    """Joint shares of (edge, darkest neighbor), (saturation, brightness) and (hue edge, saturation)."""
    darkest, lightest = _neighbourhood(pixels @ LUMA)
    inked = darkest < 0.97
    edge = lightest - darkest
    channels = [_neighbourhood(pixels[..., c]) for c in range(3)]
    hue_edge = np.max([high - low for low, high in channels], axis=0)
    saturation, brightness = np.ptp(pixels, axis=2), pixels.max(axis=2)
    pairs = (
        (edge, EDGE_BINS, darkest, DARK_BINS),
        (saturation, SATURATION_BINS, brightness, BRIGHT_BINS),
        (hue_edge, [0, 0.004, 0.01, 0.02, 0.04, 0.08, 0.2, 0.5, 1.01], saturation, [0, 0.1, 0.3, 0.6, 1.01]),
    )
    parts = []
    for first, first_bins, second, second_bins in pairs:
        counts = np.histogram2d(first[inked], second[inked], bins=(first_bins, second_bins))[0]
        parts.append(np.sqrt(counts / max(counts.sum(), 1)).ravel())
    return np.concatenate(parts)


def _neighbourhood(plane: Floats) -> tuple[Floats, Floats]:
    """Smallest and largest value of each pixel's 3 x 3 neighborhood."""
    padded = np.pad(plane, 1, mode="edge")
    height, width = plane.shape
    shifted = np.stack([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)])
    return shifted.min(axis=0), shifted.max(axis=0)


@dataclass(frozen=True)
class StyleAxis:
    """The direction in which a style's images lie from the base's of the same content; `direction` is (D,)."""

    direction: Floats
    features: Callable[[Image.Image], Floats]

    @classmethod
    def fit(
        cls,
        style: Sequence[Image.Image],
        base: Sequence[Image.Image],
        features: Callable[[Image.Image], Floats] = histograms,
    ) -> StyleAxis:
        """The axis between a style's images, at least two, and the base's of the same content."""
        there, here = (np.stack([features(picture) for picture in group]) for group in (style, base))
        within = (np.cov(there.T) + np.cov(here.T)) / 2
        spread = within + RIDGE * np.trace(within) / len(within) * np.eye(len(within))
        direction = np.linalg.solve(spread, there.mean(axis=0) - here.mean(axis=0))
        return cls((direction / np.sqrt(direction @ spread @ direction)).astype(np.float32), features)

    def places(self, pictures: Sequence[Image.Image]) -> Floats:
        """The images' positions, (N,)."""
        made: Floats = np.stack([self.features(picture) for picture in pictures]) @ self.direction
        return made

    def progress(
        self, before: Sequence[Image.Image], after: Sequence[Image.Image], real: Sequence[Image.Image]
    ) -> float:
        """The share of the way from the images before to real images of the style that those after have gone.

        Real images should be others than those of `fit`, on which the axis is too sure of itself.
        """
        start, now, end = (float(self.places(group).mean()) for group in (before, after, real))
        return (now - start) / (end - start)
