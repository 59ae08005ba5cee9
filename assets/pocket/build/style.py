"""A distance between drawing styles, independent of content: how edges, darkness and saturation are distributed.

Histograms of an image's inked pixels at two sizes, projected onto the two axes that best separate Noto, Fluent and
OpenMoji (Fisher's linear discriminant). The axes are fitted on images of no demo concept, and committed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file, save_file

from assets.pocket.build.common import HERE, ICON_SETS, MODEL, PICTURE_PX, concepts, load_pictures
from assets.pocket.build.demos import STYLE_MEASURE, STYLE_TRAIN

Floats = NDArray[np.float32]
AXES = HERE / "style-axes.safetensors"
FIXTURE = MODEL.parents[1] / "tests" / "fixtures" / "styles.png"  # rows: styles; columns: STYLE_MEASURE
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
EDGE_BINS = [0, 0.004, 0.01, 0.02, 0.035, 0.06, 0.1, 0.15, 0.25, 0.4, 0.6, 1.01]
DARK_BINS = [0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9, 1.01]
SATURATION_BINS = [0, 0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 1.01]
BRIGHT_BINS = [0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.97, 1.01]
RIDGE = 0.1


def features(picture: Image.Image) -> Floats:
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


def place(picture: Image.Image) -> Floats:
    """The position of an image on the two style axes, (2,) float32, in within-style standard deviations."""
    position: Floats = features(picture) @ load_file(AXES)["axes"]
    return position


def style_distance(pictures: list[Image.Image], others: list[Image.Image]) -> float:
    """Mean distance between all pairs of two sets, in within-style standard deviations."""
    here, there = (np.stack([place(picture) for picture in group]) for group in (pictures, others))
    return float(np.linalg.norm(here[:, None] - there[None], axis=2).mean())


def fit() -> None:
    """Fit the axes on concepts of no demo, and save them with the real images that the test compares."""
    pictures = load_pictures()
    row = {name: i for i, name in enumerate(pictures.names)}
    free = [icon for icon in concepts() if icon not in STYLE_TRAIN + STYLE_MEASURE]
    groups = [
        np.stack([features(Image.fromarray(pictures.pixels[row[style, icon]])) for icon in free]) for style in ICON_SETS
    ]
    within = np.mean([np.cov(group.T) for group in groups], axis=0)
    within += RIDGE * np.trace(within) / len(within) * np.eye(len(within))
    whiten = np.linalg.cholesky(np.linalg.inv(within))
    means = np.stack([group.mean(axis=0) for group in groups]) @ whiten
    directions = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)[2][:2]
    save_file({"axes": np.ascontiguousarray(whiten @ directions.T, dtype=np.float32)}, AXES)
    grid = np.concatenate(
        [np.concatenate([pictures.pixels[row[style, icon]] for icon in STYLE_MEASURE], axis=1) for style in ICON_SETS]
    )
    Image.fromarray(grid).save(FIXTURE, optimize=True)


if __name__ == "__main__":
    fit()
