"""What a training will take: read off earlier ones on this machine, or foreseen from the base model's architecture."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from trainer.contract.errors import TrainerError
from trainer.contract.events import Event, Heartbeat, Lora, Sample, Step, read_events
from trainer.contract.home import Home
from trainer.contract.settings.config import TrainConfig
from trainer.contract.toml import flat
from trainer.dataset.views import Plan
from trainer.models.errors import ModelError
from trainer.models.identify import identify, unet_numbers
from trainer.models.lookup import located
from trainer.planning import memory
from trainer.planning.disk import run_bytes
from trainer.planning.machine import machine_for
from trainer.planning.preview_schedule import PreviewPlan, preview_plan, preview_prompts, work
from trainer.runs.folder import RunFolder

TAIL_BYTES = 2**16  # some 400 steps: enough for a median, and quick to read however long the run was
NEWEST_RUNS = 30
# Runs alike in these take equally long per step and need equally much memory
DECIDES_THE_STEP = (
    "model.family",
    "model.base_model",
    "model.precision",
    "model.device",
    "model.gradient_checkpointing",
    "model.quantize",
    "model.offload",
    "model.memory_limit",
    "model.processes",
    "dataset.batch_size",
    "dataset.accumulation",
    "dataset.resolution",
    "dataset.further_resolutions",
    "dataset.upscale",
    "dataset.prior_preservation",
    "dataset.class_share",
    "adapter.rank",
    "adapter.targets",
    "adapter.text_encoder",
)
# Runs alike in these write files whose size goes with the rank
DECIDES_THE_FILE = ("model.family", "model.base_model", "adapter.targets", "adapter.text_encoder", "output.dtype")


@dataclass(frozen=True)
class Estimate:
    """Measured figures; None where nothing comparable was trained here yet."""

    seconds_per_step: float | None
    memory_gib: float | None
    bytes_per_file: int | None
    seconds_per_preview: float | None

    def preview_plan(self, config: TrainConfig, plan: Plan, captions: Sequence[str], processes: int) -> PreviewPlan:
        """Returns how many previews a run with these settings generates, and their share of its time."""
        ratio = None
        if self.seconds_per_preview is not None and self.seconds_per_step:
            ratio = self.seconds_per_preview / self.seconds_per_step
        return preview_plan(config, plan, len(preview_prompts(config, captions)), processes, ratio)


def estimate(home: Home, config: TrainConfig) -> Estimate:
    """Returns what this home's newest runs measured that applies to these settings."""
    wanted = flat(config)
    step: tuple[float, float] | None = None
    preview_seconds: float | None = None
    file_bytes: int | None = None
    for run in RunFolder.all(home)[:NEWEST_RUNS]:
        if step is not None and file_bytes is not None:
            break
        try:
            earlier, tail = run.config(), _tail(run)
        except (TrainerError, OSError):  # written by another version, or damaged
            continue
        had = flat(earlier)
        steps, loras = [e for e in tail if isinstance(e, Step)], [e for e in tail if isinstance(e, Lora)]
        if step is None and steps and _alike(had, wanted, DECIDES_THE_STEP):
            step = statistics.median(s.seconds for s in steps), max(s.memory_gib for s in steps)
            took = _seconds_per_preview(tail)
            preview_seconds = took * work(config) / work(earlier) if took is not None else None
        if file_bytes is None and loras and _alike(had, wanted, DECIDES_THE_FILE):
            file_bytes = round(loras[-1].bytes * wanted["adapter.rank"] / had["adapter.rank"])
    return Estimate(step[0] if step else None, step[1] if step else None, file_bytes, preview_seconds)


def disk_bytes(config: TrainConfig, steps: int, captions: Sequence[str]) -> int | None:
    """The most that a run's folder ever holds; None where `foreseen` knows nothing either."""
    family = _published(config)
    if family is None:
        return None
    prompts = len(preview_prompts(config, captions))
    return run_bytes(config, memory.trained_numbers(family, config), steps, prompts)


def foreseen(config: TrainConfig, processes: int | None = None) -> memory.MemoryPlan | None:
    """The memory that a training with these settings will take here, and what it gives up to fit.

    Several computers have more processes than the settings say.

    None for a base model that is not here, that cannot be used, or whose architecture is not a published one.
    """
    family = _published(config)
    if family is None:
        return None
    machine = machine_for(config.model)
    room = machine.free // (config.model.processes if machine.device == "cpu" else 1)
    budget, processes = memory.budget(config, room), processes or config.model.processes
    return memory.choose(family, config, budget, machine.device, half=machine.half, processes=processes)


def _published(config: TrainConfig) -> str | None:
    """The family of the base model, if it is here and of a published architecture."""
    try:
        path = located(config.model.base_model)
        model = identify(path) if path else None
    except ModelError:
        return None
    return model.family if model is not None and memory.knows(model.family, unet_numbers(model)) else None


def _alike(one: dict[str, Any], other: dict[str, Any], places: tuple[str, ...]) -> bool:
    return all(one[place] == other[place] for place in places)


def _tail(run: RunFolder) -> list[Event]:
    size = run.events_file.stat().st_size if run.events_file.exists() else 0
    events, _, _ = read_events(run.events_file, max(size - TAIL_BYTES, 0))
    return events


def _seconds_per_preview(events: list[Event]) -> float | None:
    """Median over the times that previews were generated; those before the first step share it with other work."""
    logged = [event for event in events if not isinstance(event, Heartbeat)]
    took: list[float] = []
    since, number = 0.0, 0
    for event, following in pairwise([*logged, None]):
        if not isinstance(event, Sample):
            since, number = event.t if event else 0.0, 0
            continue
        number += 1
        if not isinstance(following, Sample) and event.step and since:
            took.append((event.t - since) / number)
    return statistics.median(took) if took else None
