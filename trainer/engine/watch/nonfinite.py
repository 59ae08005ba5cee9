"""A run kept from ruin by numbers that are not finite: NaN or infinity in its losses, gradients or weights.

One update of such a gradient spoils every weight for good, so the step is left out. Where leaving out does not help,
the run goes back to its last checkpoint with half the learning rate, once; then it ends with what was good.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite

from torch import Tensor

from trainer.contract.errors import NonFiniteLoss
from trainer.contract.events import EventLog, Warned

IN_A_ROW = 3  # steps left out one after the other: more of it would not help
SCALED = 30  # the same by a gradient scaler, which begins at 65,536 and halves its scale each time: none is left then
CALMER = 0.5  # times the learning rate, after going back
NAMED = 3  # images that a message names


@dataclass
class Guardian:
    """What a run has been through; it outlives going back, and each of several processes comes to the same."""

    rate: float = 1.0  # share of the learning rate that the settings give
    in_a_row: int = 0  # steps left out, the newest ones
    _skipped: int = 0  # steps that a gradient scaler left out, the newest ones
    _told: set[str] = field(default_factory=set)

    @property
    def went_back(self) -> bool:
        """Whether the one way back is used up."""
        return self.rate < 1

    def scaler_helps(self, skipped: bool) -> bool:
        """Whether a gradient scaler has left out this step, and may yet find a scale at which nothing overflows."""
        self._skipped = self._skipped + 1 if skipped else 0
        return 0 < self._skipped <= SCALED

    def leave_out(self, error: NonFiniteLoss, log: EventLog) -> None:
        """The step is left out, which is told once for each cause.

        Raises:
            NonFiniteLoss: So were those before it.
        """
        self.in_a_row += 1
        if self.in_a_row >= IN_A_ROW:
            raise error
        if error.cause not in self._told:
            self._told.add(error.cause)
            log.write(Warned(code="step_left_out", message=f"{error.message} The step was left out.", hint=error.hint))

    def go_back(self, error: NonFiniteLoss, log: EventLog) -> None:
        """From the last checkpoint on the learning rate is half of what it was.

        Raises:
            NonFiniteLoss: The run has gone back before.
        """
        if self.went_back:
            raise error
        self.rate, self.in_a_row, self._skipped = CALMER, 0, 0
        log.write(
            Warned(
                code="went_back",
                message=f"{error.message} From the last checkpoint on the learning rate is half of what was set.",
                hint=error.hint,
            )
        )


def cause_of(names: Sequence[str], losses: Sequence[float], precision: str) -> tuple[str, str]:
    """Why a step's loss or gradient is not finite, as far as can be told, and what to do about it.

    Args:
        names: The images of the step's samples.
        losses: Each sample's loss.
        precision: fp32, bf16 or fp16.
    """
    bad = [name for name, loss in zip(names, losses, strict=True) if not isfinite(loss)]
    if 0 < len(bad) < len(losses):
        several = list(dict.fromkeys(bad))
        named = ", ".join(several[:NAMED]) + (f" and {len(several) - NAMED} more" if len(several) > NAMED else "")
        return (
            f"it comes from {named} alone",
            "Look at the image, its mask and its caption; leave it out if it stays.",
        )
    if precision == "fp16":
        return "in fp16 numbers above 65,504 are infinite", "Set --model.precision bf16 or fp32."
    return "the learning rate is probably too high", "Start a new run with half the learning rate."


def sound(tensors: Iterable[Tensor]) -> bool:
    """Whether all numbers of these tensors are finite."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors)
