"""What can be seen in an image's brightness: how soft its sharpest edges are."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]  # (H, W) brightness, 0 to 255

TILE_PX = 32
MARGIN_PX = 8  # around a tile, for the filters
TILES = 24  # those with most contrast are looked at
FINE_PX, COARSE_PX = 1.0, 2.5  # scales between which an edge is compared
SHARPEST = 0.25  # share of the tiles that decides
STEADY = 0.15  # share of the tiles that, if sharp in every direction, shows that the camera was not shaken
SHAKEN_PX = 1.3  # what is less is sharp; twice as much across, and sharper edges are only those along the shake
NO_EDGE_PX = 30.0  # what is wider is shading


def softness(gray: Plane) -> float:
    """Width σ in px of the sharpest clear edges; infinite for an image without any, 0 for one that is too small.

    After Zhuo and Sim 2011 (doi:10.1016/j.patcog.2011.03.009): smoothed with σ₁ and σ₂, an edge of width s has
    gradients whose ratio is √((s² + σ₂²) / (s² + σ₁²)). Of the tiles with most contrast the sharpest count, so a
    blurred background does no harm; noise is averaged out where tiles are chosen, and smoothed where they are measured.
    A camera that was shaken leaves edges sharp along its way: then those across it count.
    """
    tiles = _tiles(gray)
    if not len(tiles):
        return float("inf") if min(gray.shape) >= TILE_PX + 2 * MARGIN_PX else 0.0
    fine = np.hypot(*_slopes(tiles, FINE_PX))
    down, right = _slopes(tiles, COARSE_PX)
    coarse = np.hypot(down, right)
    ratio = np.asarray(fine / np.maximum(coarse, 1e-6), np.float32)
    strong = coarse >= np.quantile(coarse, 0.9, axis=1, keepdims=True)
    widths = [_width(values[chosen]) for values, chosen in zip(ratio, strong, strict=True)]
    sharpest = float(np.quantile(widths, SHARPEST))
    if np.quantile(widths, STEADY) <= SHAKEN_PX:
        return sharpest
    edge = coarse >= np.quantile(coarse, 0.8, axis=1, keepdims=True)
    across = _across(ratio, edge, np.asarray(np.arctan2(down, right) % np.pi, np.float32))
    return max(across) if len(across) > 1 and max(across) > 2 * SHAKEN_PX else sharpest


def _across(ratio: Plane, edge: NDArray[np.bool_], angle: Plane) -> list[float]:
    """Width of the sharpest edges for each of four directions, from 0 to π, that has any."""
    direction = ((angle + np.pi / 8) / (np.pi / 4)).astype(np.int_) % 4
    found = []
    for number in range(4):
        here = edge & (direction == number)
        widths = [_width(values[marks]) for values, marks in zip(ratio, here, strict=True) if marks.sum() >= 16]
        clear = [width for width in widths if width < NO_EDGE_PX]
        if len(clear) >= 5:
            found.append(float(np.quantile(clear, SHARPEST)))
    return found


def _width(ratios: Plane) -> float:
    """Edge width σ in px whose gradients at the two scales have these ratios."""
    squared = max(float(np.median(ratios)), 1.0001) ** 2
    return float(np.sqrt(max(COARSE_PX**2 - squared * FINE_PX**2, 0.0) / (squared - 1)))


def _tiles(gray: Plane) -> Plane:
    """Tiles with their margins, (N, T, T): those where neighboring 4 px blocks differ most."""
    size = TILE_PX + 2 * MARGIN_PX
    rows, columns = (gray.shape[0] - 2 * MARGIN_PX) // TILE_PX, (gray.shape[1] - 2 * MARGIN_PX) // TILE_PX
    if rows < 1 or columns < 1:
        return np.empty((0, size, size), np.float32)
    inner = gray[MARGIN_PX : MARGIN_PX + rows * TILE_PX, MARGIN_PX : MARGIN_PX + columns * TILE_PX]
    blocks = inner.reshape(rows, TILE_PX // 4, 4, columns, TILE_PX // 4, 4).mean(axis=(2, 5))  # (rows, 8, columns, 8)
    contrast = blocks.std(axis=(1, 3))
    chosen = np.argsort(contrast, axis=None)[::-1][:TILES]
    chosen = chosen[contrast.ravel()[chosen] > 3.0]
    starts = [(int(n // columns) * TILE_PX, int(n % columns) * TILE_PX) for n in chosen]
    cut = [gray[top : top + size, left : left + size] for top, left in starts]
    return np.stack(cut) if cut else np.empty((0, size, size), np.float32)


def _slopes(tiles: Plane, sigma: float) -> tuple[Plane, Plane]:
    """How steeply brightness rises downwards and to the right at this scale, (N, pixels) each, without the margins."""
    smooth, slope = _filters(sigma)
    down = np.asarray(slope @ tiles @ smooth.T, np.float32)
    right = np.asarray(smooth @ tiles @ slope.T, np.float32)
    return down.reshape(len(tiles), -1), right.reshape(len(tiles), -1)


@cache
def _filters(sigma: float) -> tuple[Plane, Plane]:
    """A Gaussian along one axis and its slope, (32, 48) each; what lies beyond the border repeats it."""
    size, reach = TILE_PX + 2 * MARGIN_PX, int(np.ceil(3 * sigma))
    offsets = np.arange(-reach, reach + 1)
    bell = np.exp(-(offsets**2) / (2 * sigma**2))
    smooth: Plane = np.zeros((size, size), np.float32)
    places = np.arange(size)
    for offset, weight in zip(offsets, bell / bell.sum(), strict=True):
        smooth[places, (places + offset).clip(0, size - 1)] += weight
    inner = slice(MARGIN_PX, MARGIN_PX + TILE_PX)
    slope: Plane = np.gradient(smooth, axis=0)
    return smooth[inner], slope[inner]
