"""Unusual steps: far longer than those before, losses out of their range or worse than the base's, time asleep."""

import statistics
import time
from collections import deque
from math import isfinite

import psutil
import torch

from trainer.engine.errors import NothingLearned

NEARLY_FULL = 0.05  # of a device's memory is free
STOOD_STILL = 60.0  # seconds that only a sleep, or somebody setting the clock, takes from a step


class Recent:
    """The newest values beside those before them."""

    def __init__(self, usual: int, recent: int) -> None:
        self.usual: deque[float] = deque(maxlen=usual)
        self.recent: deque[float] = deque(maxlen=recent)
        self.warned = False

    def take(self, value: float) -> bool:
        """Whether there is enough to compare, and no warning was given yet."""
        if len(self.recent) == self.recent.maxlen:
            self.usual.append(self.recent[0])
        self.recent.append(value)
        return not self.warned and len(self.usual) == self.usual.maxlen


class Pace(Recent):
    """The last steps' times; warns once when they have jumped, which they do when the driver spills to system RAM."""

    MUCH_LONGER = 2.5

    def __init__(self) -> None:
        super().__init__(usual=30, recent=5)

    def jumped(self, seconds: float) -> tuple[float, float] | None:
        """Seconds per step before and now, if this step makes it clear that they have jumped."""
        if not self.take(seconds):
            return None
        before, now = statistics.median(self.usual), statistics.median(self.recent)
        self.warned = now > self.MUCH_LONGER * before
        return (before, now) if self.warned else None


class Band(Recent):
    """The last steps' losses; warns once when half of the newest are above nearly all before them.

    A single loss says little: it depends on the timestep far more than on what was learned.
    """

    def __init__(self) -> None:
        super().__init__(usual=200, recent=20)

    def left(self, loss: float) -> tuple[float, float] | None:
        """Where 95 % of the losses lay, and the median of the newest, if it is above."""
        if not self.take(loss):
            return None
        edge, now = statistics.quantiles(self.usual, n=20)[-1], statistics.median(self.recent)
        self.warned = now > edge
        return (edge, now) if self.warned else None


class Yardstick:
    """The untrained base model's loss on the very samples of a step, beside the trained one's; warns once.

    A loss depends on the timestep far more than on what was learned; of two on the same samples only what was learned
    differs. The base is asked in the first steps, and later where losses look high, until they are clear.
    """

    FIRST = 10  # steps in which the base is asked whatever the loss is
    PAIRS = 5  # newest of which most must be worse, so that no single odd sample counts
    WORSE = 0.5  # of the base's usual loss: so far above its own
    HIGH = 1.25  # times the base's usual loss: high enough to ask it again
    APART = 4  # steps between two such questions
    NOTHING = 1e-6  # a base that is its own target has no loss to compare with

    def __init__(self) -> None:
        self.warned = False
        self._recent: deque[float] = deque(maxlen=8)
        self._pairs: deque[tuple[float, float]] = deque(maxlen=self.PAIRS)
        self._sum, self._count, self._since = 0.0, 0, 0

    @property
    def usual(self) -> float:
        """The base's mean loss so far."""
        return self._sum / max(self._count, 1)

    def asks(self, loss: float) -> bool:
        """Whether the base's loss on the samples of this step is needed."""
        self._recent.append(loss)
        self._since += 1
        if self.warned:
            return False
        followed_up = bool(self._pairs) and self._is_worse(*self._pairs[-1])
        high = statistics.fmean(self._recent) > self.HIGH * self.usual and self._since >= self.APART
        return self._count < self.FIRST or followed_up or high

    def diverged(self, loss: float, base: float) -> tuple[float, float] | None:
        """The mean losses of trained and base model on the newest samples, if this pair makes it clear."""
        if not isfinite(base):
            return None
        self._pairs.append((loss, base))
        self._sum, self._count, self._since = self._sum + base, self._count + 1, 0
        worse = sum(self._is_worse(*pair) for pair in self._pairs)
        now, before = (statistics.fmean(values) for values in zip(*self._pairs, strict=True))
        self.warned = worse >= self.PAIRS - 1 and self._is_worse(now, before)
        return (now, before) if self.warned else None

    def _is_worse(self, loss: float, base: float) -> bool:
        return loss - base > self.WORSE * self.usual > self.WORSE * self.NOTHING


class Standstill:
    """A training in which nothing can be learned: every loss and every gradient is exactly 0 from the first step on."""

    FIRST = 20  # steps

    def __init__(self) -> None:
        self._steps = 0
        self._moved = False

    def look(self, loss: float, grad_norm: float, *, last: bool) -> None:
        """Take a step's figures.

        Args:
            loss: The step's.
            grad_norm: Its gradient's norm.
            last: Whether it is the run's last step.

        Raises:
            NothingLearned: The first steps have all learned nothing.
        """
        self._steps += 1
        self._moved |= loss != 0 or grad_norm != 0
        if not self._moved and (last or self._steps >= self.FIRST):
            raise NothingLearned(steps=self._steps)


class Clock:
    """Detects wall-clock time that was not spent training: the computer slept, or its clock was set."""

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def slept(self, step_seconds: float, usual_seconds: float) -> float:
        """Seconds that are no work since the last call; negative where the clock was set back, and mostly 0.

        Args:
            step_seconds: What the newest step took.
            usual_seconds: What steps take; a process stopped from outside makes one that takes far more.
        """
        ahead = time.time() - time.monotonic()
        gone, self._ahead = ahead - self._ahead, ahead
        if abs(gone) > STOOD_STILL:
            return gone
        longer = step_seconds - usual_seconds
        return longer if longer > STOOD_STILL and step_seconds > 20 * usual_seconds > 0 else 0.0


def nearly_full(device: torch.device) -> bool:
    """Whether the device's memory is nearly used up, by any program."""
    if device.type == "cuda":
        free, whole = torch.cuda.mem_get_info(device)
        return free < NEARLY_FULL * whole
    memory = psutil.virtual_memory()
    return bool(memory.available < NEARLY_FULL * memory.total)
