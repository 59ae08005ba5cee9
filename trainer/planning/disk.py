"""What a run writes to the disk, foreseen before it starts; with too little room there it does not begin."""

import math
import shutil
from contextlib import suppress
from pathlib import Path

from trainer.contract.errors import DiskShort
from trainer.contract.settings.config import TrainConfig
from trainer.contract.units import size
from trainer.planning.memory import TRAINED_BYTES
from trainer.planning.preview_schedule import images

FILE_BYTES = {"fp16": 2, "bf16": 2, "fp32": 4}
PREVIEW_BYTES = 2  # per pixel: a PNG of a photograph takes less
BESIDES = 16 * 2**20  # events, log, metadata, what the file system rounds up


def run_bytes(config: TrainConfig, trained: int, steps: int, prompts: int) -> int:
    """The most that a run's folder ever holds, with the checkpoint and the file that are just being written.

    Args:
        config: The settings.
        trained: Numbers that the adapter trains.
        steps: Of the whole run.
        prompts: How many previews are generated each time.
    """
    output = config.output
    saved = trained * TRAINED_BYTES * (output.keep_checkpoints + 1)
    files = trained * FILE_BYTES[output.dtype] * (output.files + 2)  # that of an early stop, and the one being verified
    previews = images(config, steps, prompts) * math.prod(config.preview_size) * PREVIEW_BYTES
    return saved + files + previews + BESIDES


def check_space(folder: Path, needed: int) -> None:
    """Nothing happens where there is room for so many bytes more.

    Raises:
        DiskShort: There is not.
    """
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise DiskShort(folder=folder, needed=size(needed), free=size(free), missing=size(needed - free))


def bytes_used(folder: Path) -> int:
    """Bytes of the files in a folder."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # it was just being written, and has its name now
            total += path.stat().st_size if path.is_file() else 0
    return total
