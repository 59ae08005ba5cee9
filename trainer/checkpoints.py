"""Resumable states: adapter, optimizer, step. Written beside the old ones and renamed whole."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from trainer.adapters import Adapter
from trainer.contract.errors import ResumeRefused
from trainer.contract.home import atomic_write, sync_folder

FORMAT = 1


@dataclass(frozen=True)
class State:
    """What a resumed run must know besides tensors; `step` updates are done."""

    step: int
    dataset: str
    total_views: int
    effective_batch: int
    gradient_scaler: dict[str, float] | None = None
    rate: float = 1.0  # share of the learning rate that the settings give (trainer/guardian.py)
    in_a_row: int = 0
    format: int = FORMAT


def save_checkpoint(folder: Path, adapter: Adapter, optimizer: torch.optim.Optimizer, state: State, keep: int) -> Path:
    """Write `folder/<step>`, then remove all but the newest `keep`; a kill at any moment leaves the last one whole."""
    target = folder / f"{state.step:06}"
    fresh = folder / f".{target.name}.part"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        atomic_write(fresh / "adapter.safetensors", save(adapter.state()))
        atomic_write(fresh / "optimizer.safetensors", save(_moments(optimizer)))
        atomic_write(fresh / "state.json", json.dumps(asdict(state)).encode())
        shutil.rmtree(target, ignore_errors=True)
        fresh.replace(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    sync_folder(folder)
    for old in _all(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load_checkpoint(folder: Path, adapter: Adapter, optimizer: torch.optim.Optimizer, expected: State) -> State | None:
    """Restore the newest whole checkpoint; None where there is none.

    Args:
        folder: The run's checkpoints.
        adapter: Gets the trained values.
        optimizer: Gets its moments.
        expected: What data set and plan look like now; a checkpoint of other data is refused.

    Raises:
        ResumeRefused: Pictures, captions or plan changed since.
    """
    for path in reversed(_all(folder)):
        try:
            state = State(**json.loads((path / "state.json").read_text()))
            weights = load((path / "adapter.safetensors").read_bytes())
            moments = load((path / "optimizer.safetensors").read_bytes())
        except (OSError, ValueError, TypeError, SafetensorError):
            continue  # damaged by something else than us: the one before it will do
        if state.dataset != expected.dataset:
            raise ResumeRefused("pictures, masks or captions changed since it began")
        if (state.total_views, state.effective_batch) != (expected.total_views, expected.effective_batch):
            raise ResumeRefused(f"it was planned for {state.total_views} views, now there are {expected.total_views}")
        adapter.restore(weights)
        _restore_moments(optimizer, moments)
        return state
    return None


def _all(folder: Path) -> list[Path]:
    """Checkpoints, oldest first."""
    return sorted(path for path in folder.glob("[0-9]*") if path.is_dir())


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as flat tensors: "<parameter number>.<slot>"."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{slot}": value.cpu().contiguous() for i, slots in state.items() for slot, value in slots.items()}


def _restore_moments(optimizer: torch.optim.Optimizer, moments: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in moments.items():
        number, slot = key.split(".", 1)
        state.setdefault(int(number), {})[slot] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
