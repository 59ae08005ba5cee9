"""Recovery from NaN and infinity in losses, gradients or weights.

One update with such a gradient ruins every weight, so the step is skipped. Where skipping does not help, the run
resumes from its last checkpoint at half the learning rate, once; after that it ends and keeps the last good files.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite

from torch import Tensor

from trainer.contract.errors import NonFiniteLoss
from trainer.contract.events import EventLog, Warned
from trainer.contract.wording import setting

IN_A_ROW = 3  # skipped steps in a row: skipping more would not help
SCALED = 30  # in a row by the gradient scaler, which starts at 65,536 and halves its scale each time
CALMER = 0.5  # times the learning rate, after going back
NAMED = 3  # images that a message names


@dataclass
class Recovery:
    """What was skipped and retried so far; it outlives a restart, and is equal in every process."""

    rate: float = 1.0  # share of the learning rate that the settings give
    in_a_row: int = 0  # newest steps skipped in a row
    _skipped: int = 0  # newest steps that the gradient scaler skipped in a row
    _warned: set[str] = field(default_factory=set)

    @property
    def went_back(self) -> bool:
        """Whether the run has already restarted at half the learning rate."""
        return self.rate < 1

    def scaler_helps(self, skipped: bool) -> bool:
        """Whether the gradient scaler skipped this step and may still find a scale that does not overflow."""
        self._skipped = self._skipped + 1 if skipped else 0
        return 0 < self._skipped <= SCALED

    def leave_out(self, error: NonFiniteLoss, log: EventLog) -> None:
        """Skip the step, with one warning for each cause.

        Raises:
            NonFiniteLoss: Too many steps in a row were skipped.
        """
        self.in_a_row += 1
        if self.in_a_row >= IN_A_ROW:
            raise error
        if error.cause not in self._warned:
            self._warned.add(error.cause)
            log.write(Warned(code="step_left_out", message=f"{error.message} The step was left out.", hint=error.hint))

    def go_back(self, error: NonFiniteLoss, log: EventLog) -> None:
        """Halve the learning rate for the restart from the last checkpoint.

        Raises:
            NonFiniteLoss: The run has restarted before.
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
    """Why a step's loss or gradient is not finite, as far as is known, and what to do about it.

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
            "Look at the image, its mask and its caption; exclude it if this happens again.",
        )
    if precision == "fp16":
        return (
            "fp16 overflows above 65,504",
            f"Set {setting('model.precision', 'bf16')} or {setting('model.precision', 'fp32')}.",
        )
    return "the learning rate is probably too high", "Start a new run with half the learning rate."


def sound(tensors: Iterable[Tensor]) -> bool:
    """Whether all numbers of these tensors are finite."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors)
