"""Lettering along the upper and lower border of an image, where watermarks, signatures and addresses stand."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.uint8]  # (H, W) brightness
Sums = NDArray[np.float32]  # (H + 1, W + 1) sums over everything above and to the left

BORDER = 0.22  # share of the height that is looked at, above and below
STROKE_PX = 7  # strokes are narrower
LONGEST_PX = 19  # what runs on for longer is no stroke
CONTRAST = 14  # of a stroke to its ground, at least
HEIGHTS_PX = (7, 9, 12, 16)  # of letters; twice that is found at half the scale
TRIED = 8  # bands of the best scores in which periods are looked for
ECHO = 0.6  # correlation with itself further on
CERTAIN = 18.0  # score from which it is lettering
EMPTY = 0.05  # share of strokes that is as good as none


def lettering(gray: Gray) -> bool:
    """Whether there is a line of letters along the border.

    It differs from grass, bricks and hair in this: strokes fill a band evenly from left to right and
    from top to bottom, about one for each letter height of length, and right above and below it there are hardly any.
    """
    even = gray[: gray.shape[0] // 2 * 2, : gray.shape[1] // 2 * 2].astype(np.uint16)
    half = ((even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) // 4).astype(np.uint8)
    strips = (strip for plane in (gray, half) for strip in _strips(plane))
    return any(_is_lettered(strokes) for strip in strips for strokes in _strokes(strip))


def _strips(gray: Gray) -> Iterator[Gray]:
    """The upper border, and the lower one upside down: their first row is the image's outermost."""
    height = max(int(gray.shape[0] * BORDER), 3 * HEIGHTS_PX[0])
    if min(gray.shape) >= 6 * HEIGHTS_PX[0]:
        yield gray[:height]
        yield gray[::-1][:height]


def _strokes(strip: Gray) -> Iterator[NDArray[np.bool_]]:
    """Where narrow bright structures are, and where narrow dark ones; long lines are neither."""
    for plane in (strip, 255 - strip):
        opened = _running(_running(plane, STROKE_PX, np.minimum), STROKE_PX, np.maximum)
        above = plane - opened  # the opening never exceeds the plane
        strokes = above > max(CONTRAST, 0.45 * _quantile(above, 0.985))
        if strokes.any():
            lines = strokes
            for extreme in (np.minimum, np.maximum):
                lines = _run_along(lines.view(np.uint8), LONGEST_PX, extreme, 1).view(np.bool_)
            yield strokes & ~lines


def _quantile(plane: Gray, share: float) -> int:
    """The value that this share of the pixels stays below, by counting them."""
    below = np.bincount(plane.ravel(), minlength=256).cumsum()
    return int(np.searchsorted(below, share * plane.size))


def _running(plane: Gray, size: int, extreme: np.ufunc) -> Gray:
    """Least or greatest value of each square of `size` px."""
    return _run_along(_run_along(plane, size, extreme, 0), size, extreme, 1)


def _run_along(plane: Gray, size: int, extreme: np.ufunc, axis: int) -> Gray:
    """Least or greatest of `size` values along one axis, in steps that double the reach of each value."""
    padding = [(0, 0), (0, 0)]
    padding[axis] = (size // 2, size // 2)
    out: Gray = np.pad(plane, padding, mode="edge")
    seen = 1
    while seen < size:
        step = min(seen, size - seen)
        ahead, behind = (out[step:], out[:-step]) if axis == 0 else (out[:, step:], out[:, :-step])
        out = extreme(ahead, behind)
        seen += step
    return out


def _is_lettered(strokes: NDArray[np.bool_]) -> bool:
    """Whether any band of a strip is a line of letters."""
    begins = np.zeros_like(strokes)
    begins[:, 1:] = strokes[:, 1:] & ~strokes[:, :-1]
    area, starts = _sums(strokes), _sums(begins)
    width = strokes.shape[1]
    return any(
        length <= width and 1.35 * height < strokes.shape[0] and _has_line(area, starts, height, length)
        for height in HEIGHTS_PX
        for length in sorted({max(6 * height, 64), max(6 * height, round(0.3 * width))})
    )


def _sums(marks: NDArray[np.bool_]) -> Sums:
    """Sums over everything above and to the left, from which those of a box are four look-ups."""
    sums = np.zeros((marks.shape[0] + 1, marks.shape[1] + 1), np.float32)
    sums[1:, 1:] = marks.cumsum(axis=0, dtype=np.int32).cumsum(axis=1)
    return sums


def _has_line(area: Sums, starts: Sums, height: int, length: int) -> bool:
    """Whether a band of this height and length is one: by contrast to what is above and below, and by its shape."""
    rows, step, long = area.shape[0] - 1, max(length // 8, 4), math.sqrt(length / height)
    dense = _everywhere(area, height, length, step)
    strokes = _everywhere(starts, height, length, step) * height  # per letter height of length
    least = max(0.12, CERTAIN * EMPTY / long)
    top, left = np.nonzero((dense > least) & (dense < 0.6) & (strokes > 0.35) & (strokes < 2.2))
    inside = dense[top, left]
    left *= step

    near, far = int(0.3 * height), int(0.75 * height)  # parts of tall and of hanging letters lie between
    above = _share(area, np.maximum(top - far, 0), np.maximum(top - near, 0), left, left + length)
    below = _share(
        area, np.minimum(top + height + near, rows), np.minimum(top + height + far, rows), left, left + length
    )
    around = np.maximum(above, below)
    scores = inside / (around + EMPTY) * long
    keep = (around < 0.33 * inside) & (top + height + near + 2 <= rows) & (scores >= CERTAIN)
    if not keep.any():  # as nearly everywhere
        return False
    top, left, inside, scores = top[keep], left[keep], inside[keep], scores[keep]

    even = np.ones(len(top), np.bool_)
    for part in range(4):
        begin = left + part * (length // 4)
        even &= _share(area, top, top + height, begin, begin + length // 4) > 0.35 * inside
    for part in range(3):
        begin = top + part * (height // 3)
        even &= _share(area, begin, begin + height // 3, left, left + length) > 0.45 * inside
    for best in np.argsort(scores[even])[::-1][:TRIED]:
        row, column = int(top[even][best]), int(left[even][best])
        strip = area[[row, row + height], column : column + length + 1]
        if not _periodic(np.diff(strip[1] - strip[0])):
            return True
    return False


def _periodic(profile: NDArray[np.float32]) -> bool:
    """Whether the same returns at equal distances, as windows and pickets do and letters do not."""
    waves = profile - profile.mean()
    echo = np.correlate(waves, waves, "full")[len(waves) - 1 :]
    echo = echo / max(float(echo[0]), 1e-6)
    apart = int(np.argmax(echo < 0.05))
    return apart > 0 and float(echo[apart : 2 * len(echo) // 3].max(initial=0.0)) > ECHO


def _everywhere(sums: Sums, height: int, length: int, step: int) -> Sums:
    """Share that is marked of the boxes that begin in each row and in every `step`-th column."""
    right, left = sums[:, length::step], sums[:, : sums.shape[1] - length : step]
    wide = right - left
    return np.asarray((wide[height:] - wide[:-height]) / (height * length), np.float32)


def _share(sums: Sums, top: NDArray[np.int_], bottom: NDArray[np.int_], left: NDArray[np.int_], right: NDArray[np.int_],
           ) -> NDArray[np.float32]:  # fmt: skip
    """Share of each box that is marked; 0 for an empty one."""
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return np.asarray(inside / np.maximum((bottom - top) * (right - left), 1), np.float32)
