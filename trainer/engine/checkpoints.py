"""Resumable states: adapter, optimizer, step. Written beside the old ones and renamed whole.

Each file's SHA-256 stands in `state.json`, and that file's own too: a checkpoint with a flipped bit is passed over.
"""

import hashlib
import json
import re
import shutil
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from trainer.contract.events import EventLog, Warned
from trainer.contract.files import atomic_write, discard, sync_folder
from trainer.contract.ours import NotOurs, check, read_plain
from trainer.contract.wording import action
from trainer.engine.adapters.lora import Adapter
from trainer.engine.fingerprint import Inputs, changes
from trainer.runs.errors import CheckpointsDamaged, NewerVersion, ResumeRefused
from trainer.runs.moved import MOVED, recorded

# 1 knew what the run was made from by `dataset` alone, and could not name what had changed; 2 had no digests
UNSEALED, FORMAT = 2, 3
STATE, TENSORS = "state.json", ("adapter.safetensors", "optimizer.safetensors")
OWN_DIGEST = re.compile(rb'"own": "([0-9a-f]{64})"')  # of the file itself, taken with zeros in this place
UNKNOWN = "0" * 64


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
    digests: dict[str, str] = field(default_factory=dict, compare=False)  # SHA-256 by file's name; "own" of state.json


def save_checkpoint(folder: Path, adapter: Adapter, optimizer: torch.optim.Optimizer, state: State, keep: int) -> Path:
    """Write `folder/<step>`, then remove all but the newest `keep`; a kill at any moment leaves the last one whole.

    Raises:
        NotOurs: The folder, or what lies there for this step, is a link.
    """
    target = folder / f"{state.step:06}"
    fresh = folder / f".{target.name}.part"
    for ours in (folder, target, fresh):
        check(ours, folder=True)
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        tensors = dict(zip(TENSORS, (save(adapter.state()), save(_moments(optimizer))), strict=True))
        for name, data in tensors.items():
            atomic_write(fresh / name, data)
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in tensors.items()}
        atomic_write(fresh / STATE, _sealed(asdict(state) | {"digests": {**digests, "own": UNKNOWN}}))
        if target.exists():
            _make_room(target)
        fresh.replace(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    sync_folder(folder)
    # Somebody else's folders have no state; later steps are damaged, or this run would have resumed from them
    for old in [path for path in _all(folder) if (path / STATE).is_file() and int(path.name) <= state.step][:-keep]:
        discard(old)
    return target


def _make_room(target: Path) -> None:
    """Delete the checkpoint of this step; another folder of that name is kept under a new one."""
    if (target / STATE).is_file():
        discard(target)
    else:
        others = (target.with_name(f"{target.name}-kept-{number}") for number in count(1))
        target.rename(next(free for free in others if not free.exists()))


def _sealed(state: dict[str, object]) -> bytes:
    """The state as JSON, with its own digest filled in."""
    text = json.dumps(state).encode()
    return text.replace(b'"own": "' + UNKNOWN.encode(), b'"own": "' + hashlib.sha256(text).hexdigest().encode())


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
        log: Gets a warning if checkpoints are damaged and an older one is used.

    Raises:
        CheckpointsDamaged: There are some, and none is whole.
        NotOurs: One of them is a link, or holds something else than plain files.
        ResumeRefused: Images, captions, base model, settings or plan changed since; it says which.
        NewerVersion: A later version of this program wrote it.
    """
    damaged: list[str] = []
    for path in reversed(_all(folder)):
        try:
            state = _read_state(path / STATE)
            weights, moments = (load(_read_tensors(path / name, state)) for name in TENSORS)
        except NotOurs:
            raise
        except (OSError, ValueError, TypeError, KeyError, SafetensorError):
            damaged.append(path.name)  # by something else than us: the one before it will do
            continue
        _refuse_others(state, expected, folder.parent)
        if damaged and log:
            log.write(_passed_over(damaged, path.name))
        adapter.restore(weights)
        _restore_moments(optimizer, moments)
        return state
    if damaged:
        raise CheckpointsDamaged(folder=folder, names=", ".join(damaged))
    return None


def _passed_over(damaged: list[str], used: str) -> Warned:
    message = f"Damaged checkpoint {', '.join(damaged)}: training resumes from {used}; the steps since are repeated."
    return Warned(code="damaged_checkpoint", message=message, hint="Check the disk for errors.")


def _read_state(file: Path) -> State:
    text = read_plain(file)
    known = json.loads(text)
    if "digests" in known:  # first: a flipped bit may well look like a newer version
        _verify(file.name, OWN_DIGEST.sub(f'"own": "{UNKNOWN}"'.encode(), text), known["digests"]["own"])
    if known["format"] > FORMAT:
        raise NewerVersion(name=f"The checkpoint {file.parent.name}", seen=known["format"], known=FORMAT)
    if known["format"] > UNSEALED and "digests" not in known:
        raise ValueError(f"{file.name} lacks its digests")
    return State(**known)


def _read_tensors(file: Path, state: State) -> bytes:
    data = read_plain(file)
    if state.digests:
        _verify(file.name, data, state.digests[file.name])
    return data


def _verify(name: str, data: bytes, digest: str) -> None:
    """Raise ValueError if the data is not what was written."""
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"{name} has changed since it was written")


def _refuse_others(state: State, expected: State, run: Path) -> None:
    """Refuse to resume from a checkpoint whose inputs have changed."""
    kinds = set(state.inputs)
    if state.dataset == expected.dataset:  # also where an earlier version named a concept's images by its folder
        kinds &= {"model", "setting"}
    others = changes(*({kind: one.get(kind, {}) for kind in kinds} for one in (state.inputs, expected.inputs)))
    if not others and state.dataset != expected.dataset:
        others = ["images, masks or captions changed"]
    if not others and (state.total_views, state.effective_batch) != (expected.total_views, expected.effective_batch):
        others = [f"it was planned for {state.total_views} views, and now there are {expected.total_views}"]
    if not others:
        return
    newest = max(run.glob("*.safetensors"), key=lambda file: file.stat().st_mtime, default=None)
    flags = f"--config {run / 'config.toml'} --adapter.start_from {newest}"
    other = f"Or continue as a new run: {action('train_on', flags)}." if newest else "Or start a new run."
    given = recorded(run / MOVED).values()
    looked = f" (its files were last given as {', '.join(given)})" if given else ""
    raise ResumeRefused(why=f"since it began, {'; '.join(others)}{looked}", anyway=other)


def _all(folder: Path) -> list[Path]:
    """Checkpoints, oldest first.

    Raises:
        NotOurs: A link is called like one.
    """
    check(folder, folder=True)
    found = [path for path in folder.glob("[0-9]*") if path.name.isdecimal()]
    for path in found:
        check(path, folder=True)
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
