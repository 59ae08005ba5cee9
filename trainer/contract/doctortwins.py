"""The same picture twice: byte for byte, or once more in another size, format, brightness, crop, or mirrored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Plane = NDArray[np.float32]

HASH_PX = 32  # side of the picture of which the hash is taken
SMALL_PX = 64  # side of the one that candidates are compared in
INNER_PX = 48  # the middle of it: a watermark or a frame does not make another picture
BLOCK_PX = 8
NEAR_BITS = 14  # of 64: what is farther apart is not even compared
ALIKE = 0.4  # greatest difference of a block's brightness, in standard deviations of the picture's
SAME_COLOUR = 30.0  # greatest difference of a block's colour, 0 to 255
MARGINS = (0, 1, 2, 3)  # px that one of the two may be cut by, all around
SHIFTS = (0, -1, 1)
# DCT-II, of which the hash keeps the eight lowest frequencies of each direction
COSINES = np.cos(np.pi / HASH_PX * np.outer(np.arange(8), np.arange(HASH_PX) + 0.5)).astype(np.float32)


@dataclass(frozen=True)
class Likeness:
    """What is kept of a picture to find it again."""

    code: int  # 64 bits that change little when the picture does (pHash, Zauner 2010)
    mirrored: int  # those of its mirror image
    small: bytes  # (64, 64, 3) RGB


@dataclass(frozen=True)
class Twin:
    """A picture that shows what another one shows."""

    picture: Path
    kept: Path  # the larger one of the two
    mirrored: bool = False


def likeness(picture: Image.Image) -> Likeness:
    """What is kept of an upright RGB picture."""
    tiny = picture.convert("L").resize((HASH_PX, HASH_PX), Image.Resampling.BOX)
    small = picture.resize((SMALL_PX, SMALL_PX), Image.Resampling.BOX)
    return Likeness(_hash(tiny), _hash(ImageOps.mirror(tiny)), small.tobytes())


def exact_twins(pictures: Sequence[Path]) -> list[Twin]:
    """Files with the same bytes as an earlier one; only those of equal length are read."""
    lengths: dict[int, list[Path]] = {}
    for path in pictures:
        lengths.setdefault(path.stat().st_size, []).append(path)
    kept: dict[bytes, Path] = {}
    twins = []
    for path in (path for same in lengths.values() if len(same) > 1 for path in same):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        if digest in kept:
            twins.append(Twin(path, kept[digest]))
        kept.setdefault(digest, path)
    return twins


def near_twins(pictures: Mapping[Path, Likeness]) -> list[Twin]:
    """Pictures that show what an earlier one shows; give the one to be kept first.

    Hashes choose the candidates; a comparison block by block decides, so that the pictures of a series, which differ in
    a face or a hand alone, are not taken for one.
    """
    paths, seen = list(pictures), list(pictures.values())
    codes = np.array([one.code for one in seen], np.uint64)
    mirrored = np.array([one.mirrored for one in seen], np.uint64)
    gone: set[int] = set()
    twins = []
    for first in range(len(paths)):
        if first in gone:
            continue
        for flipped, others in ((False, codes), (True, mirrored)):
            near = np.flatnonzero(np.bitwise_count(others[first + 1 :] ^ codes[first]) <= NEAR_BITS) + first + 1
            for second in (int(number) for number in near if int(number) not in gone):
                if _alike(_picture(seen[first]), _picture(seen[second], flipped)):
                    gone.add(second)
                    twins.append(Twin(paths[second], paths[first], flipped))
    return twins


def _hash(tiny: Image.Image) -> int:
    waves = (COSINES @ np.asarray(tiny, np.float32) @ COSINES.T).ravel()
    bits = waves > np.median(waves[1:])  # the first is the mean brightness
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _picture(seen: Likeness, flipped: bool = False) -> Image.Image:
    picture = Image.frombytes("RGB", (SMALL_PX, SMALL_PX), seen.small)
    return ImageOps.mirror(picture) if flipped else picture


def _alike(one: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures show the same, if need be after one of them was cut a little all around."""
    return any(_same(first, second) for first, second in _alignments(one, other))


def _alignments(one: Image.Image, other: Image.Image) -> Iterator[tuple[Plane, Plane]]:
    """The middle of both, the one or the other cut by some margin and shifted."""
    plain_one, plain_other = _middle(one, 0), _middle(other, 0)
    for margin in MARGINS:
        for right in SHIFTS if margin else (0,):
            for down in SHIFTS if margin else (0,):
                yield _middle(one, margin, right, down), plain_other
                if margin:
                    yield plain_one, _middle(other, margin, right, down)


def _middle(picture: Image.Image, margin: int, right: int = 0, down: int = 0) -> Plane:
    """(48, 48, 3): the middle of the picture that is left after a margin was cut off."""
    share = (SMALL_PX - 2 * margin) / SMALL_PX
    edge = margin + (SMALL_PX - INNER_PX) / 2 * share
    box = (edge + right, edge + down, edge + right + INNER_PX * share, edge + down + INNER_PX * share)
    return np.asarray(picture.resize((INNER_PX, INNER_PX), Image.Resampling.BILINEAR, box=box), np.float32)


def _same(one: Plane, other: Plane) -> bool:
    """Whether no block differs, but for brightness and contrast of the whole."""
    greys = [plane.mean(axis=2) for plane in (one, other)]
    spreads = [float(grey.std()) for grey in greys]
    if min(spreads) < 2.0:
        return max(spreads) < 2.0 and float(np.abs(one - other).max()) < SAME_COLOUR
    even = [(grey - grey.mean()) / spread for grey, spread in zip(greys, spreads, strict=True)]
    if _blocks(np.abs(even[0] - even[1])).max() > ALIKE:
        return False
    tints = [plane - grey[..., None] for plane, grey in zip((one, other), greys, strict=True)]
    return bool(_blocks(np.abs(tints[0] - tints[1]).max(axis=2)).max() < SAME_COLOUR)


def _blocks(plane: Plane) -> Plane:
    """Mean of each block."""
    count = INNER_PX // BLOCK_PX
    return np.asarray(plane.reshape(count, BLOCK_PX, count, BLOCK_PX).mean(axis=(1, 3)), np.float32)
