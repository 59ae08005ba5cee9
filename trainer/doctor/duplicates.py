"""Duplicate images: byte for byte, or in another size, format, brightness, crop, or mirrored."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from trainer.dataset.images import GAP

Plane = NDArray[np.float32]

HASH_PX = 32  # side of the image of which the hash is taken
SMALL_PX = 64  # side of the one that candidates are compared in
INNER_PX = 48  # the middle of it: a watermark or a frame does not make another image
BLOCK_PX = 8
NEAR_BITS = 14  # of 64: what is farther apart is not even compared
ALIKE = 0.4  # greatest difference of a block's brightness, in standard deviations of the image's
SAME_COLOUR = 30.0  # greatest difference of a block's color, 0 to 255
ROUNDING = 1e-4
PLAIN = 2.0  # standard deviation of brightness, 0 to 255, below which an area shows nothing
SHIFTS = (0, -1, 1)
# Ways to cut an image: px all around, and shifted to the right and down. Of two that are compared, one is cut
CUTS = [(0, 0, 0), *((margin, right, down) for margin in (1, 2, 3) for right in SHIFTS for down in SHIFTS)]
ONE = [*range(len(CUTS)), *(0 for _ in CUTS[1:])]
OTHER = [*(0 for _ in CUTS), *range(1, len(CUTS))]
GROUP = 128  # candidates that are weighed up together
TRIED = 128  # comparisons of a group that may fail; what comes after is less likely still
# DCT-II, of which the hash keeps the eight lowest frequencies of each direction
COSINES = np.cos(np.pi / HASH_PX * np.outer(np.arange(8), np.arange(HASH_PX) + 0.5)).astype(np.float32)


@dataclass(frozen=True)
class Likeness:
    """Hashes and thumbnail of an image, to find its duplicates."""

    code: int  # 64 bits that change little when the image does (pHash, Zauner 2010)
    mirrored: int  # those of its mirror image
    small: bytes  # (64, 64, 3) RGB


@dataclass(frozen=True)
class Twin:
    """A duplicate of another image."""

    image: Path
    kept: Path  # the larger one of the two
    mirrored: bool = False


def likeness(image: Image.Image, gray: Image.Image) -> Likeness:
    """Returns the hashes and thumbnail of an upright RGB image; `gray` is its brightness at any size."""
    tiny = gray.resize((HASH_PX, HASH_PX), Image.Resampling.BOX)
    small = image.resize((SMALL_PX, SMALL_PX), Image.Resampling.BILINEAR, reducing_gap=GAP)
    return Likeness(_hash(tiny), _hash(ImageOps.mirror(tiny)), small.tobytes())


def exact_twins(images: Sequence[Path], digest: Callable[[Path], str]) -> list[Twin]:
    """Returns files with the same bytes as an earlier one, by their `digest`; it is asked only about equal lengths."""
    lengths: dict[int, list[Path]] = {}
    for path in images:
        lengths.setdefault(path.stat().st_size, []).append(path)
    kept: dict[str, Path] = {}
    twins = []
    for path in (path for same in lengths.values() if len(same) > 1 for path in same):
        first = kept.setdefault(digest(path), path)
        if first != path:
            twins.append(Twin(path, first))
    return twins


def near_twins(images: Mapping[Path, Likeness]) -> list[Twin]:
    """Returns near-duplicates of an earlier image; pass the one to keep first.

    Hashes choose the candidates; a comparison block by block decides, so that images of a series, which differ only in
    a face or a hand, do not count.
    """
    paths, album = list(images), _Album(list(images.values()))
    gone: set[int] = set()
    twins = []
    for first in range(len(paths)):
        if first in gone:
            continue
        for flipped in (False, True):
            alike = album.like(first, flipped, gone)
            gone.update(alike)
            twins += [Twin(paths[second], paths[first], flipped) for second in alike]
    return twins


class _Album:
    """Images to be compared: the likeliest first, and of unlikely ones no more than a number that does not grow."""

    def __init__(self, seen: Sequence[Likeness]) -> None:
        self._seen = seen
        self._codes = np.array([one.code for one in seen], np.uint64)
        self._mirrored = np.array([one.mirrored for one in seen], np.uint64)
        self._shades: dict[tuple[int, bool], Plane] = {}

    def like(self, first: int, flipped: bool, gone: Collection[int]) -> list[int]:
        """The later images, mirrored or not, that show what this one shows, but for those that are `gone`.

        They are taken in groups, nearest first; a group without any is the last.
        """
        codes = (self._mirrored if flipped else self._codes)[first + 1 :]
        apart = np.bitwise_count(codes ^ self._codes[first])
        nearest = np.argsort(apart, kind="stable")[: int((apart <= NEAR_BITS).sum())] + first + 1
        near = [int(number) for number in nearest if int(number) not in gone]
        found: list[int] = []
        for begin in range(0, len(near), GROUP):
            alike = self._alike(first, near[begin : begin + GROUP], flipped)
            if not alike:
                break
            found += alike
        return sorted(found)

    def _alike(self, first: int, group: list[int], flipped: bool) -> set[int]:
        """Those of a group that are alike, if need be after one of the two was cut a little all around."""
        one = self._brightness(first, False)[ONE]
        others = np.stack([self._brightness(number, flipped)[OTHER] for number in group], axis=1)
        least = np.abs(one[:, None] - others).max(axis=2)  # (ways, group): what the blocks differ by at least
        found: set[int] = set()
        missed = 0
        for place in np.argsort(least, axis=None, kind="stable"):
            way, number = divmod(int(place), len(group))
            if least[way, number] > ALIKE + ROUNDING or missed == TRIED:
                break
            if group[number] in found:
                continue
            first_cut = _middle(_image(self._seen[first]), *CUTS[ONE[way]])
            other_cut = _middle(_image(self._seen[group[number]], flipped), *CUTS[OTHER[way]])
            if _same(first_cut, other_cut):
                found.add(group[number])
            else:
                missed += 1
        return found

    def _brightness(self, number: int, flipped: bool) -> Plane:
        """(28, 36): the mean of each block for each of `CUTS`, in standard deviations; 0 for a plain area."""
        if (number, flipped) not in self._shades:
            image = _image(self._seen[number], flipped)
            evened = [_even(_middle(image, *way).mean(axis=2)) for way in CUTS]
            self._shades[number, flipped] = np.stack([_blocks(plane).ravel() for plane in evened])
        return self._shades[number, flipped]


def _hash(tiny: Image.Image) -> int:
    waves = (COSINES @ np.asarray(tiny, np.float32) @ COSINES.T).ravel()
    bits = waves > np.median(waves[1:])  # the first is the mean brightness
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _image(seen: Likeness, flipped: bool = False) -> Image.Image:
    image = Image.frombytes("RGB", (SMALL_PX, SMALL_PX), seen.small)
    return ImageOps.mirror(image) if flipped else image


def _middle(image: Image.Image, margin: int, right: int = 0, down: int = 0) -> Plane:
    """(48, 48, 3): the middle of the image that is left after a margin was cut off."""
    share = (SMALL_PX - 2 * margin) / SMALL_PX
    edge = margin + (SMALL_PX - INNER_PX) / 2 * share
    box = (edge + right, edge + down, edge + right + INNER_PX * share, edge + down + INNER_PX * share)
    return np.asarray(image.resize((INNER_PX, INNER_PX), Image.Resampling.BILINEAR, box=box), np.float32)


def _same(one: Plane, other: Plane) -> bool:
    """Whether no block differs, but for brightness and contrast of the whole."""
    grays = [plane.mean(axis=2) for plane in (one, other)]
    spreads = [float(gray.std()) for gray in grays]
    if min(spreads) < PLAIN:
        return max(spreads) < PLAIN and float(np.abs(one - other).max()) < SAME_COLOUR
    if _blocks(np.abs(_even(grays[0]) - _even(grays[1]))).max() > ALIKE:
        return False
    tints = [plane - gray[..., None] for plane, gray in zip((one, other), grays, strict=True)]
    return bool(_blocks(np.abs(tints[0] - tints[1]).max(axis=2)).max() < SAME_COLOUR)


def _even(gray: Plane) -> Plane:
    """Brightness in standard deviations from its mean; 0 for a plain area."""
    spread = float(gray.std())
    return np.zeros_like(gray) if spread < PLAIN else (gray - gray.mean()) / np.float32(spread)


def _blocks(plane: Plane) -> Plane:
    """Mean of each block."""
    count = INNER_PX // BLOCK_PX
    return np.asarray(plane.reshape(count, BLOCK_PX, count, BLOCK_PX).mean(axis=(1, 3)), np.float32)
