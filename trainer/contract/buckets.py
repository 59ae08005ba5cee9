"""Bucket and crop geometry, and the arithmetic from views to steps. Pure functions of numbers."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.contract.settings import DatasetSettings


@dataclass(frozen=True)
class Size:
    """Width and height in px."""

    width: int
    height: int


@dataclass(frozen=True)
class Crop:
    """Scale a picture to `scaled`, then cut `bucket` out of it at (left, top), all in px."""

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


def crop_to(width: int, height: int, bucket: Size) -> Crop:
    """Scale so that the bucket is just covered, and cut from the centre."""
    scale = max(bucket.width / width, bucket.height / height)
    scaled = Size(max(round(width * scale), bucket.width), max(round(height * scale), bucket.height))
    return Crop(scaled, (scaled.width - bucket.width) // 2, (scaled.height - bucket.height) // 2, bucket)


@dataclass(frozen=True)
class View:
    """One showing of one picture: which picture, and how often it was shown before."""

    item: int
    epoch: int


@dataclass(frozen=True)
class Plan:
    """How often pictures are shown and what that makes in steps; `total_views` is exact."""

    pictures: int
    total_views: int
    effective_batch: int

    @property
    def steps(self) -> int:
        """Optimizer updates; the last one may see fewer pictures."""
        return math.ceil(self.total_views / self.effective_batch)

    @property
    def views_per_picture(self) -> float:
        """Every picture is shown this often, rounded up or down."""
        return self.total_views / self.pictures


def plan(pictures: int, settings: DatasetSettings) -> Plan:
    """Views from the settings, kept between their limits but never under one view per picture."""
    wished = min(max(pictures * settings.views, settings.min_total_views), settings.max_total_views)
    return Plan(pictures, max(wished, pictures), settings.batch_size * settings.accumulation)


def views_of_step(step: int, made: Plan, bucket_of: Sequence[Size], seed: int) -> list[View]:
    """The views of step 0, 1, …: a function of its arguments alone, so a resumed run goes on exactly.

    Each pass over the pictures is shuffled, with pictures of one bucket kept in runs of the effective batch, so
    that most steps are one forward pass. Passes follow one another without a gap: nothing is dropped.
    """
    first = step * made.effective_batch
    last = min(first + made.effective_batch, made.total_views)
    epochs = range(first // made.pictures, math.ceil(last / made.pictures))
    orders = {epoch: _order(epoch, made, bucket_of, seed) for epoch in epochs}
    return [
        View(orders[place // made.pictures][place % made.pictures], place // made.pictures)
        for place in range(first, last)
    ]


def _order(epoch: int, made: Plan, bucket_of: Sequence[Size], seed: int) -> list[int]:
    """One pass over all pictures, drawn from (seed, epoch)."""
    rng = random.Random(f"{seed}-{epoch}")
    groups: dict[Size, list[int]] = {}
    for item in rng.sample(range(made.pictures), made.pictures):
        groups.setdefault(bucket_of[item], []).append(item)
    runs, rest = [], []
    for members in groups.values():
        whole = len(members) // made.effective_batch * made.effective_batch
        runs += [members[i : i + made.effective_batch] for i in range(0, whole, made.effective_batch)]
        rest += members[whole:]
    rng.shuffle(runs)
    return [item for run in runs for item in run] + rest


def micro_batches(places: Sequence[int], bucket_of: Sequence[Size], batch_size: int) -> list[list[int]]:
    """Split a step's samples into forward passes of one bucket each.

    Args:
        places: Sample numbers within the step, ascending.
        bucket_of: The bucket of each sample, indexed by sample number.
        batch_size: Most samples per pass.
    """
    groups: dict[Size, list[int]] = {}
    for place in places:
        groups.setdefault(bucket_of[place], []).append(place)
    return [group[i : i + batch_size] for group in groups.values() for i in range(0, len(group), batch_size)]
