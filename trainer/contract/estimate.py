"""What a training will take: read off earlier ones on this machine, or foreseen from the base model's architecture."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from trainer.contract import memory
from trainer.contract.basemodels import identify, unet_numbers
from trainer.contract.chosen import located
from trainer.contract.errors import InvalidSettings, ModelError
from trainer.contract.events import Lora, Step, read_events
from trainer.contract.home import Home
from trainer.contract.machine import machine_for
from trainer.contract.presets import flat
from trainer.contract.runs import RunFolder
from trainer.contract.settings import TrainConfig

TAIL_BYTES = 2**16  # some 400 steps: enough for a median, and quick to read however long the run was
NEWEST_RUNS = 30
# Runs alike in these take equally long per step and need equally much memory
DECIDES_THE_STEP = (
    "model.family",
    "model.base_model",
    "model.precision",
    "model.device",
    "model.checkpointing",
    "model.quantize",
    "model.stream",
    "model.memory_limit",
    "model.processes",
    "dataset.batch_size",
    "dataset.accumulation",
    "dataset.resolution",
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


def estimate(home: Home, config: TrainConfig) -> Estimate:
    """What this home's newest runs tell about one with these settings."""
    wanted = flat(config)
    step: tuple[float, float] | None = None
    file_bytes: int | None = None
    for run in RunFolder.all(home)[:NEWEST_RUNS]:
        if step is not None and file_bytes is not None:
            break
        try:
            had = flat(run.config())
        except InvalidSettings:  # written by another version
            continue
        steps, loras = _tail(run)
        if step is None and steps and _alike(had, wanted, DECIDES_THE_STEP):
            step = statistics.median(s.seconds for s in steps), max(s.memory_gib for s in steps)
        if file_bytes is None and loras and _alike(had, wanted, DECIDES_THE_FILE):
            file_bytes = round(loras[-1].bytes * wanted["adapter.rank"] / had["adapter.rank"])
    return Estimate(step[0] if step else None, step[1] if step else None, file_bytes)


def foreseen(config: TrainConfig) -> memory.MemoryPlan | None:
    """The memory that a training with these settings will take here, and what it gives up to fit.

    None for a base model that is not here, that cannot be used, or whose architecture is not a published one.
    """
    try:
        path = located(config.model.base_model)
        model = identify(path) if path else None
        if model is None or not memory.knows(model.family, unet_numbers(model)):
            return None
    except ModelError:
        return None
    machine = machine_for(config.model)
    room = machine.free // (config.model.processes if machine.device == "cpu" else 1)
    return memory.choose(model.family, config, memory.budget(config, room), machine.device, half=machine.half)


def _alike(one: dict[str, Any], other: dict[str, Any], places: tuple[str, ...]) -> bool:
    return all(one[place] == other[place] for place in places)


def _tail(run: RunFolder) -> tuple[list[Step], list[Lora]]:
    """The run's last steps and files."""
    size = run.events_file.stat().st_size if run.events_file.exists() else 0
    events, _, _ = read_events(run.events_file, max(size - TAIL_BYTES, 0))
    return [e for e in events if isinstance(e, Step)], [e for e in events if isinstance(e, Lora)]
