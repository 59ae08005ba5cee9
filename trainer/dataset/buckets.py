"""Bucket and crop geometry, and the arithmetic from views to steps. Pure functions of numbers."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import NamedTuple

from trainer.contract.settings.config import DatasetSettings

LONGEST = 4  # times the short side: no bucket is longer
SMALLEST = 2  # a picture is shown at no less than the resolution's side divided by this, or the area of that square


class Size(NamedTuple):
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


@lru_cache(maxsize=10_000)  # pictures of one camera have one size
def bucket_for(width: int, height: int, resolution_px: int, step_px: int, upscale: bool = False) -> Size:
    """The bucket that a picture is shown in: the nearest in aspect ratio, if it need not be enlarged for it.

    A smaller picture has a bucket of its own, as large as the grid lets it be; one that fills less than a quarter of
    the area is enlarged to that. With `upscale` every picture is enlarged to the whole.
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
    """How a picture is scaled and cut for a model's grid of `step_px`, at each of the sizes it is shown at in turn."""
    sides = (rules.resolution, *rules.further_resolutions)
    sizes = [bucket_for(width, height, side, step_px, rules.upscale) for side in sides]
    return [crop_to(width, height, size, focus) for size in sizes]


def grid_step(vae_levels: int, unet_levels: int) -> int:
    """Sides of buckets are multiples of so many px: each level but the last halves what it is given."""
    return int(2 ** (vae_levels - 1) * 2 ** (unet_levels - 1))


class View(NamedTuple):
    """One showing of one picture: which picture at which of its sizes, and how often it was shown before."""

    item: int  # number of the picture x sizes + number of the size
    epoch: int


@dataclass(frozen=True)
class Plan:
    """How often pictures are shown and what that makes in steps; `total_views` is exact."""

    pictures: int
    total_views: int
    effective_batch: int
    sizes: int = 1  # at which each picture is shown in turn
    weights: tuple[float, ...] = ()  # of the pictures; none: all alike
    base_views: int = 0  # besides, of pictures that the base model drew to be kept at

    @property
    def steps(self) -> int:
        """Optimizer updates; the last one may see fewer pictures."""
        return math.ceil((self.total_views + self.base_views) / self.effective_batch)

    def places(self, step: int) -> tuple[int, int]:
        """The first of all views that a step shows, and the first that it shows no more."""
        everything = self.total_views + self.base_views
        first = step * self.effective_batch
        return min(first, everything), min(first + self.effective_batch, everything)

    def base_views_before(self, place: int) -> int:
        """How many of the views before this place are of the base model's pictures: they are evenly spread."""
        return place * self.base_views // (self.total_views + self.base_views)

    def passes(self, step: int) -> float:
        """How often the pictures were shown after so many steps, on average."""
        last, _ = self.places(step)
        return (last - self.base_views_before(last)) / self.pictures

    @property
    def views_per_picture(self) -> float:
        """Every picture is shown this often, rounded up or down, or its share of it by weight."""
        return self.total_views / self.pictures


def plan(pictures: int, settings: DatasetSettings, weights: Sequence[float] = ()) -> Plan:
    """Views from the settings, kept between their limits but never under one view per picture."""
    wished = min(max(pictures * settings.views, settings.min_total_views), settings.max_total_views)
    total = max(wished, pictures)
    share = settings.protect_share if settings.protect else 0.0
    return Plan(
        pictures,
        total,
        settings.batch_size * settings.accumulation,
        sizes=1 + len(settings.further_resolutions),
        weights=tuple(weights) if len(set(weights)) > 1 else (),
        base_views=round(total * share / (1 - share)),
    )


def views_of_step(step: int, made: Plan, bucket_of: Sequence[Size], seed: int) -> list[View]:
    """The user's views of step 0, 1, …: a function of its arguments alone, so a resumed run goes on exactly.

    Pictures come in passes of as many views as there are pictures. Each pass is shuffled, with pictures of one bucket
    kept in runs of the effective batch, so that most steps are one forward pass. Passes follow one another without a
    gap: nothing is dropped. Without weights a pass shows every picture once.

    Args:
        step: Counted from 0.
        made: The run's plan.
        bucket_of: The bucket of each picture at each of its sizes, in the order of `View.item`.
        seed: The run's.
    """
    first, last = (place - made.base_views_before(place) for place in made.places(step))
    numbers = range(first // made.pictures, math.ceil(last / made.pictures))
    sizes = tuple(bucket_of)
    passes = {number: _pass(number, made, sizes, seed) for number in numbers}
    return [passes[place // made.pictures][place % made.pictures] for place in range(first, last)]


@lru_cache(maxsize=4)  # that of the step, for all steps that it takes
def _pass(number: int, made: Plan, bucket_of: tuple[Size, ...], seed: int) -> list[View]:
    """One pass, drawn from (seed, number)."""
    rng = random.Random(f"{seed}-{number}")
    if made.weights:
        shown = _weighted(made, seed)[number * made.pictures : (number + 1) * made.pictures]
    else:
        shown = [(picture, number) for picture in range(made.pictures)]
    groups: dict[Size, list[View]] = {}
    for picture, epoch in rng.sample(shown, len(shown)):
        view = View(picture * made.sizes + (picture + epoch) % made.sizes, epoch)
        groups.setdefault(bucket_of[view.item], []).append(view)
    runs, rest = [], []
    for members in groups.values():
        whole = len(members) // made.effective_batch * made.effective_batch
        runs += [members[i : i + made.effective_batch] for i in range(0, whole, made.effective_batch)]
        rest += members[whole:]
    rng.shuffle(runs)
    return [view for run in runs for view in run] + rest


@lru_cache(maxsize=2)  # of the run that trains; sorting a long one takes a second
def _weighted(made: Plan, seed: int) -> list[tuple[int, int]]:
    """The whole run's pictures, each with the number of its showing: as often as its weight says, to within one.

    A picture's views are spread evenly over the run, each at a random place of its own stretch.
    """
    rng = random.Random(f"{seed}-weights")
    order = rng.sample(range(made.pictures), made.pictures)
    ends = list(accumulate(made.weights[picture] for picture in order))
    bounds = [0, *(math.floor(made.total_views * (end / ends[-1]) + 0.5) for end in ends)]
    counts = (upper - lower for lower, upper in pairwise(bounds))  # their roundings make up for one another
    spread = (
        ((epoch + rng.random()) / count, picture, epoch)
        for picture, count in zip(order, counts, strict=True)
        for epoch in range(count)
    )
    return [(picture, epoch) for _, picture, epoch in sorted(spread)]


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
