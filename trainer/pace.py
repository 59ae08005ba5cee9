"""Steps that suddenly take much longer while memory is nearly full: the driver is using system memory instead."""

from __future__ import annotations

import statistics
from collections import deque

import psutil
import torch

USUAL, RECENT = 30, 5  # steps
MUCH_LONGER = 2.5
NEARLY_FULL = 0.05  # of a device's memory is free


class Pace:
    """The last steps' times; tells once when they have jumped."""

    def __init__(self) -> None:
        self._usual: deque[float] = deque(maxlen=USUAL)
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._told = False

    def jumped(self, seconds: float) -> tuple[float, float] | None:
        """Seconds per step before and now, if this step makes it clear that they have jumped; told once."""
        if len(self._recent) == RECENT:
            self._usual.append(self._recent[0])
        self._recent.append(seconds)
        if self._told or len(self._usual) < USUAL:
            return None
        before, now = statistics.median(self._usual), statistics.median(self._recent)
        self._told = now > MUCH_LONGER * before
        return (before, now) if self._told else None


def nearly_full(device: torch.device) -> bool:
    """Whether the device's memory is as good as used up, by whomever."""
    if device.type == "cuda":
        free, whole = torch.cuda.mem_get_info(device)
        return free < NEARLY_FULL * whole
    memory = psutil.virtual_memory()
    return bool(memory.available < NEARLY_FULL * memory.total)
