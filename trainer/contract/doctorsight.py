"""What can be seen in a picture's brightness: how soft its sharpest edges are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]  # (H, W) brightness, 0 to 255

TILE_PX = 32
MARGIN_PX = 8  # around a tile, for the filters
TILES = 24  # those with most contrast are looked at
FINE_PX, COARSE_PX = 1.0, 2.5  # scales between which an edge is compared
SHARPEST = 0.25  # share of the tiles that decides
SHAKEN_PX = 1.4  # less than this in all, and some edges are sharp; twice as much across, and they are the shake's
NO_EDGE_PX = 30.0  # what is wider is shading


def softness(grey: Plane) -> float:
    """Width σ in px of the sharpest clear edges; infinite for a picture without any, 0 for one that is too small.

    After Zhuo and Sim 2011 (doi:10.1016/j.patcog.2011.03.009): smoothed with σ₁ and σ₂, an edge of width s has
    gradients whose ratio is √((s² + σ₂²) / (s² + σ₁²)). Of the tiles with most contrast the sharpest count, so a
    blurred background does no harm; noise is averaged out where tiles are chosen, and smoothed where they are measured.
    A camera that was shaken leaves edges sharp along its way: then those across it count.
    """
    tiles = _tiles(grey)
    if not len(tiles):
        return float("inf") if min(grey.shape) >= TILE_PX + 2 * MARGIN_PX else 0.0
    fine, _ = _gradient(tiles, FINE_PX)
    coarse, angle = _gradient(tiles, COARSE_PX)
    edge = coarse >= np.quantile(coarse, 0.8, axis=1, keepdims=True)
    strong = coarse >= np.quantile(coarse, 0.9, axis=1, keepdims=True)
    ratio = np.asarray(fine / np.maximum(coarse, 1e-6), np.float32)
    widths = [_width(values[chosen]) for values, chosen in zip(ratio, strong, strict=True)]
    sharpest = float(np.quantile(widths, SHARPEST))
    across = _across(ratio, edge, angle)
    return max(across) if sharpest > SHAKEN_PX and len(across) > 1 and max(across) > 2 * SHAKEN_PX else sharpest


def _across(ratio: Plane, edge: NDArray[np.bool_], angle: Plane) -> list[float]:
    """Width of the sharpest edges for each of four directions that has any."""
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


def _tiles(grey: Plane) -> Plane:
    """Tiles with their margins, (N, T, T): those where neighbouring 4 px blocks differ most."""
    size = TILE_PX + 2 * MARGIN_PX
    rows, columns = (grey.shape[0] - 2 * MARGIN_PX) // TILE_PX, (grey.shape[1] - 2 * MARGIN_PX) // TILE_PX
    if rows < 1 or columns < 1:
        return np.empty((0, size, size), np.float32)
    inner = grey[MARGIN_PX : MARGIN_PX + rows * TILE_PX, MARGIN_PX : MARGIN_PX + columns * TILE_PX]
    blocks = inner.reshape(rows, TILE_PX // 4, 4, columns, TILE_PX // 4, 4).mean(axis=(2, 5))  # (rows, 8, columns, 8)
    contrast = blocks.std(axis=(1, 3))
    chosen = np.argsort(contrast, axis=None)[::-1][:TILES]
    chosen = chosen[contrast.ravel()[chosen] > 3.0]
    starts = [(int(n // columns) * TILE_PX, int(n % columns) * TILE_PX) for n in chosen]
    cut = [grey[top : top + size, left : left + size] for top, left in starts]
    return np.stack(cut) if cut else np.empty((0, size, size), np.float32)


def _gradient(tiles: Plane, sigma: float) -> tuple[Plane, Plane]:
    """Size of the gradient at this scale and its angle from 0 to π, (N, pixels) each, without the margins."""
    reach = int(np.ceil(3 * sigma))
    x = np.arange(-reach, reach + 1, dtype=np.float32)
    bell = np.exp(-(x**2) / (2 * sigma**2))
    bell /= bell.sum()
    smooth = _along(_along(tiles, bell, 1), bell, 2)
    inner = slice(MARGIN_PX, MARGIN_PX + TILE_PX)
    down, right = (np.gradient(smooth, axis=axis)[:, inner, inner].reshape(len(tiles), -1) for axis in (1, 2))
    return np.hypot(down, right), np.asarray(np.arctan2(down, right) % np.pi, np.float32)


def _along(tiles: Plane, kernel: Plane, axis: int) -> Plane:
    """Correlation with a kernel along one axis; what lies beyond the border repeats it."""
    reach = len(kernel) // 2
    padding = [(reach, reach) if number == axis else (0, 0) for number in range(3)]
    wide = np.pad(tiles, padding, mode="edge")
    length = tiles.shape[axis]
    total = np.zeros_like(tiles)
    for offset, weight in enumerate(kernel):
        total += weight * wide.take(range(offset, offset + length), axis=axis)
    return total
