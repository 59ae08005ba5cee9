"""What a training will take, read off earlier trainings on this machine: seconds, memory, bytes per file."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from trainer.contract.errors import InvalidSettings
from trainer.contract.events import Lora, Step, read_events
from trainer.contract.home import Home
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
    "model.gradient_checkpointing",
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


def _alike(one: dict[str, Any], other: dict[str, Any], places: tuple[str, ...]) -> bool:
    return all(one[place] == other[place] for place in places)


def _tail(run: RunFolder) -> tuple[list[Step], list[Lora]]:
    """The run's last steps and files."""
    size = run.events_file.stat().st_size if run.events_file.exists() else 0
    events, _, _ = read_events(run.events_file, max(size - TAIL_BYTES, 0))
    return [e for e in events if isinstance(e, Step)], [e for e in events if isinstance(e, Lora)]
