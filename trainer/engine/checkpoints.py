"""Resumable states: adapter, optimizer, step. Written beside the old ones and renamed whole."""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from trainer.contract.events import EventLog, Warned
from trainer.contract.files import atomic_write, discard, sync_folder
from trainer.contract.wording import action
from trainer.engine.adapters.lora import Adapter
from trainer.engine.fingerprint import Inputs, changes
from trainer.runs.errors import NewerVersion, ResumeRefused

FORMAT = 2  # 1 knew what the run was made from by `dataset` alone, and could not name what had changed


@dataclass(frozen=True)
class State:
    """What a resumed run must know besides tensors; `step` updates are done."""

    step: int
    dataset: str
    total_views: int
    effective_batch: int
    gradient_scaler: dict[str, float] | None = None
    rate: float = 1.0  # share of the learning rate that the settings give (trainer/engine/watch/nonfinite.py)
    in_a_row: int = 0
    inputs: Inputs = field(default_factory=dict)
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
        if target.exists():
            discard(target)
        fresh.replace(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    sync_folder(folder)
    for old in _all(folder)[:-keep]:
        discard(old)
    return target


def load_checkpoint(
    folder: Path,
    adapter: Adapter,
    optimizer: torch.optim.Optimizer,
    expected: State,
    log: EventLog | None = None,
) -> State | None:
    """Restore the newest whole checkpoint; None where there is none.

    Args:
        folder: The run's checkpoints.
        adapter: Gets the trained values.
        optimizer: Gets its moments.
        expected: What the run is made from and planned for now; a checkpoint of something else is refused.
        log: Gets a warning for each checkpoint that cannot be read and is skipped.

    Raises:
        ResumeRefused: Images, captions, base model, settings or plan changed since; it says which.
        NewerVersion: A later version of this program wrote it.
    """
    for path in reversed(_all(folder)):
        try:
            state = _read_state(path / "state.json")
            weights = load((path / "adapter.safetensors").read_bytes())
            moments = load((path / "optimizer.safetensors").read_bytes())
        except (OSError, ValueError, TypeError, SafetensorError):
            if log:  # damaged by something else than us: the one before it will do
                log.write(_damage(path))
            continue
        _refuse_others(state, expected, folder.parent)
        adapter.restore(weights)
        _restore_moments(optimizer, moments)
        return state
    return None


def _damage(path: Path) -> Warned:
    message = f"The checkpoint {path.name} cannot be read and is passed over: its steps are trained again."
    return Warned(code="damaged_checkpoint", message=message, hint="Check the disk for errors.")


def _read_state(file: Path) -> State:
    known = json.loads(file.read_text())
    if known["format"] > FORMAT:
        raise NewerVersion(name=f"The checkpoint {file.parent.name}", seen=known["format"], known=FORMAT)
    return State(**known)


def _refuse_others(state: State, expected: State, run: Path) -> None:
    """Refuse to resume from a checkpoint whose inputs have changed."""
    others = changes(state.inputs, expected.inputs) if state.inputs else []
    if not others and state.dataset != expected.dataset:
        others = ["images, masks or captions changed"]
    if not others and (state.total_views, state.effective_batch) != (expected.total_views, expected.effective_batch):
        others = [f"it was planned for {state.total_views} views, and now there are {expected.total_views}"]
    if not others:
        return
    newest = max(run.glob("*.safetensors"), key=lambda file: file.stat().st_mtime, default=None)
    flags = f"--config {run / 'config.toml'} --adapter.start_from {newest}"
    other = f"Or continue as a new run: {action('train_on', flags)}." if newest else "Or start a new run."
    raise ResumeRefused(why=f"since it began, {'; '.join(others)}", anyway=other)


def _all(folder: Path) -> list[Path]:
    """Checkpoints, oldest first."""
    found = (path for path in folder.glob("[0-9]*") if path.name.isdecimal() and path.is_dir())
    return sorted(found, key=lambda path: int(path.name))


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
