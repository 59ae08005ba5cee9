"""What must hold of a run's folder whatever happened to its trainer, and what of a run that was gone on with."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load, load_file

from trainer.contract.files import LEFT_BEHIND
from trainer.doctor import kept
from trainer.engine.data.cache import CHECKSUM_BYTES
from trainer.runs.folder import RunFolder


def _image(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def _entry(path: Path) -> None:
    data = path.read_bytes()
    if path.parent.name == "doctor":  # what was measured of images, as JSON
        if kept._checksum(data[CHECKSUM_BYTES:]) != data[:CHECKSUM_BYTES]:
            raise ValueError("its checksum is wrong")
        json.loads(data[CHECKSUM_BYTES:])
        return
    if hashlib.sha256(data[CHECKSUM_BYTES:]).digest() != data[:CHECKSUM_BYTES]:
        raise ValueError("its checksum is wrong")
    load(data[CHECKSUM_BYTES:])


PARSERS: dict[str, Callable[[Path], object]] = {
    ".safetensors": load_file,
    ".png": _image,
    ".json": lambda path: json.loads(path.read_text()),
    ".toml": lambda path: tomllib.loads(path.read_text()),
    ".entry": _entry,
}


def faults_of(run: RunFolder) -> list[str]:
    """What is wrong with what a reader sees in the home, just after the trainer was ended."""
    wrong = []
    for path in run.home.root.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(run.home.root).parts)
        if path.suffix in PARSERS and path.is_file() and not hidden:
            try:
                PARSERS[path.suffix](path)
            except Exception as error:  # noqa: BLE001 (whatever a parser says)
                wrong.append(f"{path.name} is not whole: {error}")
    visible = [path for path in run.checkpoints.glob("*") if not path.name.startswith(".")]
    parts = {"adapter.safetensors", "optimizer.safetensors", "state.json"}
    wrong += [
        f"checkpoint {path.name} lacks files" for path in visible if {one.name for one in path.iterdir()} != parts
    ]
    if run.view().checkpoints and not visible:
        wrong.append("the run has told of a checkpoint, and there is none")
    if run.status() not in ("interrupted", "failed", "completed"):
        wrong.append(f"its state is {run.status()}, so that nobody would go on with it")
    return wrong


def leftovers(run: RunFolder) -> list[str]:
    """Files in the run's folder that only a write in progress has."""
    return [path.name for pattern in LEFT_BEHIND for path in run.path.rglob(pattern)]


def differences(run: RunFolder, whole: RunFolder, images: bool = True) -> list[str]:
    """What the run does not have as one has that was never disturbed.

    Args:
        run: It, completed.
        whole: The other, of the same settings.
        images: Whether its previews count: they may fail alone.
    """
    ours, theirs = run.view(), whole.view()
    wrong = [f"{name} was left behind" for name in leftovers(run)]
    if run.status() != "completed":
        return [*wrong, f"it is {run.status()}: {ours.ended}"]
    if [(step.step, step.loss) for step in ours.steps] != [(step.step, step.loss) for step in theirs.steps]:
        wrong.append("its losses are others")
    if {lora.file for lora in ours.loras} != {lora.file for lora in theirs.loras}:
        wrong.append(f"it tells of the files {[lora.file for lora in ours.loras]}")
    shown = [{(one.step, one.index) for one in view.samples} for view in (ours, theirs)]
    if images and shown[0] != shown[1]:
        wrong.append(f"it lacks the previews {sorted(shown[1] - shown[0])}")
    for path in whole.path.glob("*.safetensors"):
        if not (run.path / path.name).is_file():
            wrong.append(f"{path.name} is missing")
        elif not _equal(run.path / path.name, path):
            wrong.append(f"{path.name} has other weights")
    return wrong


def _equal(ours: Path, theirs: Path) -> bool:
    mine, others = load_file(ours), load_file(theirs)
    return mine.keys() == others.keys() and all(torch.equal(mine[name], others[name]) for name in others)
