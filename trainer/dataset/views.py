"""From images to steps: which views a step trains, and how they fall into batches."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import NamedTuple

from trainer.contract.settings.dataset import DatasetSettings
from trainer.dataset.buckets import Size


class View(NamedTuple):
    """One showing of one image: which image at which of its sizes, and how often it was shown before."""

    item: int  # number of the image x sizes + number of the size
    epoch: int


@dataclass(frozen=True)
class Plan:
    """How often images are shown and what that makes in steps; `total_views` is exact."""

    images: int
    total_views: int
    effective_batch: int
    sizes: int = 1  # at which each image is shown in turn
    weights: tuple[float, ...] = ()  # of the images; none: all alike
    base_views: int = 0  # views of class images (prior preservation), in addition

    @property
    def steps(self) -> int:
        """Optimizer updates; the last one may see fewer images."""
        return math.ceil((self.total_views + self.base_views) / self.effective_batch)

    def places(self, step: int) -> tuple[int, int]:
        """The first of all views that a step shows, and the first that it shows no more."""
        everything = self.total_views + self.base_views
        first = step * self.effective_batch
        return min(first, everything), min(first + self.effective_batch, everything)

    def base_views_before(self, place: int) -> int:
        """How many of the views before this one are of class images, which are evenly spread."""
        return place * self.base_views // (self.total_views + self.base_views)

    def passes(self, step: int) -> float:
        """How often the images were shown after so many steps, on average."""
        last, _ = self.places(step)
        return (last - self.base_views_before(last)) / self.images

    @property
    def views_per_image(self) -> float:
        """Every image is shown this often, rounded up or down, or its share of it by weight."""
        return self.total_views / self.images


class Limit(NamedTuple):
    """A setting that has images shown more or less often than asked for: its name, its views, and those asked for."""

    place: str
    views: int
    asked: int


def limit_of(images: int, settings: DatasetSettings) -> Limit | None:
    """The setting that rules how often these images are shown, if it is not `dataset.views`."""
    asked = images * settings.views
    if asked < settings.min_total_views:
        return Limit("dataset.min_total_views", settings.min_total_views, asked)
    if asked > max(settings.max_total_views, images):
        return Limit("dataset.max_total_views", settings.max_total_views, asked)
    return None


def plan(images: int, settings: DatasetSettings, weights: Sequence[float] = ()) -> Plan:
    """Views from the settings, kept between their limits but never under one view per image."""
    wanted = min(max(images * settings.views, settings.min_total_views), settings.max_total_views)
    total = max(wanted, images)
    share = settings.class_share if settings.keeps_prior else 0.0
    return Plan(
        images,
        total,
        settings.batch_size * settings.accumulation,
        sizes=1 + len(settings.further_resolutions),
        weights=tuple(weights) if len(set(weights)) > 1 else (),
        base_views=round(total * share / (1 - share)),
    )


def views_of_step(step: int, made: Plan, bucket_of: Sequence[Size], seed: int) -> list[View]:
    """The user's views of step 0, 1, …: a function of its arguments alone, so a resumed run repeats them exactly.

    Images come in passes of as many views as there are images. Each pass is shuffled, with images of one bucket
    kept in runs of the effective batch, so that most steps are one forward pass. Passes follow one another without a
    gap: nothing is dropped. Without weights a pass shows every image once.

    Args:
        step: Counted from 0.
        made: The run's plan.
        bucket_of: The bucket of each image at each of its sizes, in the order of `View.item`.
        seed: The run's.
    """
    first, last = (place - made.base_views_before(place) for place in made.places(step))
    numbers = range(first // made.images, math.ceil(last / made.images))
    sizes = tuple(bucket_of)
    passes = {number: _pass(number, made, sizes, seed) for number in numbers}
    return [passes[place // made.images][place % made.images] for place in range(first, last)]


@lru_cache(maxsize=4)  # that of the step, for all steps that it takes
def _pass(number: int, made: Plan, bucket_of: tuple[Size, ...], seed: int) -> list[View]:
    """One pass, shuffled by (seed, number)."""
    rng = random.Random(f"{seed}-{number}")
    if made.weights:
        shown = _weighted(made, seed)[number * made.images : (number + 1) * made.images]
    else:
        shown = [(image, number) for image in range(made.images)]
    groups: dict[Size, list[View]] = {}
    for image, epoch in rng.sample(shown, len(shown)):
        view = View(image * made.sizes + (image + epoch) % made.sizes, epoch)
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
    """The whole run's images, each with the number of its showing: as often as its weight says, to within one.

    An image's views are spread evenly over the run, each at a random place of its own stretch.
    """
    rng = random.Random(f"{seed}-weights")
    order = rng.sample(range(made.images), made.images)
    ends = list(accumulate(made.weights[image] for image in order))
    bounds = [0, *(math.floor(made.total_views * (end / ends[-1]) + 0.5) for end in ends)]
    counts = (upper - lower for lower, upper in pairwise(bounds))  # their roundings make up for one another
    spread = (
        ((epoch + rng.random()) / count, image, epoch)
        for image, count in zip(order, counts, strict=True)
        for epoch in range(count)
    )
    return [(image, epoch) for _, image, epoch in sorted(spread)]


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
