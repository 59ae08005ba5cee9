"""Previews of a run: when they fall due, what they show, and what share of its time they will take."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.contract.settings.config import TrainConfig
from trainer.dataset.views import Plan
from trainer.runs.sheets import STRENGTHS

DEFAULT_PREVIEWS = 5
MOST_DEFAULT_PROMPTS = 4
MOST_STRIP_PROMPTS = 1  # six images: a run must not end with a long wait
PASSES_OF_A_VIEW = 3  # forward, and backward as two of it
MANY = 1 / 3  # of the time


@dataclass(frozen=True)
class PreviewPlan:
    """How many images a run generates, those of its strength strip among them, and their share of its time."""

    images: int
    share: float

    @property
    def percent(self) -> int:
        """The share as people read it."""
        return max(round(100 * self.share), 1)

    @property
    def many(self) -> bool:
        """Whether that is more than previews should take."""
        return self.share > MANY


def due(step: int, steps: int, every: int, default_count: int) -> bool:
    """Whether something falls due after `step` of `steps`: each `every`, or `default_count` times evenly spaced."""
    if every:
        return step % every == 0
    marks = {round(steps * i / default_count) for i in range(1, default_count + 1)}
    return step in marks


def preview_prompts(config: TrainConfig, captions: Sequence[str]) -> tuple[str, ...]:
    """The user's prompts, else the first different captions."""
    return config.preview.prompts or tuple(dict.fromkeys(captions))[:MOST_DEFAULT_PROMPTS]


def images(config: TrainConfig, steps: int, prompts: int) -> int:
    """Returns how many images a run generates: before the first step, when due, after the last, and the strip."""
    if config.preview.every:
        between = (steps - 1) // config.preview.every
    else:
        between = sum(due(step, steps, 0, DEFAULT_PREVIEWS) for step in range(1, steps))
    return (between + 2) * prompts + min(prompts, MOST_STRIP_PROMPTS) * len(STRENGTHS)


def work(config: TrainConfig) -> float:
    """What one image takes, in forward passes of the UNet over a training image; guidance doubles them."""
    area = math.prod(config.preview_size) / config.dataset.resolution**2
    return config.preview.steps * (2 if config.preview.guidance_scale > 1 else 1) * area


def preview_plan(
    config: TrainConfig, plan: Plan, prompts: int, processes: int, ratio: float | None = None
) -> PreviewPlan:
    """Number and share of the run's images.

    Args:
        config: The settings.
        plan: How much is trained.
        prompts: How many are generated each time.
        processes: How many share the training; one of them generates.
        ratio: Time of one image to that of one step, if it was measured; counted passes decide it otherwise.
    """
    count = images(config, plan.steps, prompts)
    if ratio is None:
        ratio = work(config) * processes / (PASSES_OF_A_VIEW * (plan.total_views + plan.base_views) / plan.steps)
    return PreviewPlan(count, count * ratio / (count * ratio + plan.steps))


def words(made: PreviewPlan) -> str:
    """For the console: "28 images, about 12 % of the time"; and what to do where that is much."""
    lever = ": raise --preview.every, lower --preview.steps, or give fewer prompts" if made.many else ""
    return f"{made.images} images, about {made.percent} % of the time{lever}"
