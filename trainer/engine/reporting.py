"""What the event log says of a run that goes well: its preparation, its start, each step, and unusual ones."""

import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from trainer.contract.events import EventLog, Phase, RunStarted, Step, Warned
from trainer.contract.units import duration
from trainer.contract.wording import setting
from trainer.dataset.problems import Problem
from trainer.engine.device import memory_gib
from trainer.engine.state import Training
from trainer.engine.watch.anomalies import nearly_full
from trainer.runs.folder import RunFolder


class EndedEarly(Exception):
    """The run was asked to end while it was still being prepared; there is nothing to save."""

    def __init__(self, reason: Literal["stopped", "paused"], by_system: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.by_system = by_system


@dataclass(frozen=True)
class Preparing:
    """Logs the progress of the preparation, and obeys requests meanwhile.

    One of several processes does not listen: the others would wait for it. They hear it with their first step.
    """

    run: RunFolder
    log: EventLog
    listens: bool

    def report(self, name: Literal["load", "download", "encode", "protect"]) -> Callable[[int, int], None]:
        """A function that takes how much of this is done, and of how much.

        Raises:
            EndedEarly: It was asked to stop or to pause.
        """

        def _report(done: int, total: int) -> None:
            self.log.write(Phase(name=name, done=done, total=total))
            if self.listens and self.run.take_request("end"):
                raise EndedEarly("stopped", by_system=True)
            if self.listens and self.run.take_request("stop"):
                raise EndedEarly("stopped")
            if self.listens and self.run.take_request("pause"):
                raise EndedEarly("paused")

        return _report


def report_problems(log: EventLog, problems: Iterable[Problem]) -> None:
    """What is wrong with the images, none of which ends the run."""
    for problem in problems:
        log.write(Warned(code=problem.code, message=problem.message, hint=problem.hint))


def report_start(training: Training) -> None:
    """Log that a process starts or resumes training."""
    device, processes = training.accelerator.device, training.accelerator.num_processes
    several = f" x{processes}" if processes > 1 else ""
    training.log.write(
        RunStarted(
            family=training.family.spec.name,
            base_model=training.config.model.base_model,
            steps_total=training.plan.steps,
            resumed_at=training.step,
            device=f"{device.type} {training.precision}{several}",
            memory_gib=memory_gib(device),
            versions=_versions(),
        )
    )


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "diffusers", "transformers", "peft", "accelerate")}


def report_step(training: Training, loss: float, lr: float, grad_norm: float, seconds: float) -> None:
    """One line for the step just done."""
    training.log.write(
        Step(
            step=training.step,
            epoch=round(training.plan.passes(training.step), 4),
            loss=loss,
            lr=lr,
            grad_norm=grad_norm,
            seconds=round(seconds, 4),
            memory_gib=round(memory_gib(training.accelerator.device), 3),
        )
    )
    for warning in unusual(training, loss, seconds):
        training.log.write(warning)


def report_divergence(training: Training, loss: float, of_base: float) -> None:
    """Warn once it is clear that the model answers worse than it did untrained.

    Args:
        training: It, after the step.
        loss: The step's.
        of_base: The base model's on the same samples, with the same noise.
    """
    found = training.yardstick.diverged(loss, of_base)
    if not found:
        return
    rate = training.config.optimizer.learning_rate
    training.log.write(
        Warned(
            code="diverged",
            message=f"The training has diverged: at step {training.step} the loss is {found[0]:.3g}, and that of the "
            f"untrained base model on the same images {found[1]:.3g}. The LoRA makes the base worse.",
            hint=f"Stop, and start again with {setting('optimizer.learning_rate', f'{rate / 10:.2g}')}, a tenth of "
            f"what it is, or with a smaller {setting('adapter.alpha')}. Files from before may still be good.",
        )
    )


def unusual(training: Training, loss: float, seconds: float) -> Iterator[Warned]:
    """Warnings about steps that take much longer with full memory, losses that have left their band, and lost time."""
    jump, left = training.pace.jumped(seconds), training.band.left(loss)
    if jump and nearly_full(training.accelerator.device):
        yield Warned(
            code="memory_spills",
            message=f"Steps take {jump[1]:.1f} s instead of {jump[0]:.1f}, and memory is full: the system probably "
            "swaps.",
            hint=f"Close other programs, or stop and start again with a smaller {setting('model.memory_limit')}.",
        )
    if left:
        yield Warned(
            code="loss_rises",
            message=f"Half of the last {len(training.band.recent)} losses are above {left[1]:.3g}; before, 95 % lay "
            f"below {left[0]:.3g}.",
            hint="If previews get worse, stop: earlier files are kept. Then start again with half the learning rate.",
        )
    gone = training.clock.slept(seconds, statistics.median(training.pace.usual or [seconds]))
    if gone:
        way = "stood still for" if gone > 0 else "found the clock set back by"
        yield Warned(
            code="time_lost",
            message=f"The run {way} {duration(abs(gone))}: the computer slept, was suspended, or its clock was set.",
            hint="Nothing is lost. To train through the night, keep the computer from sleeping.",
        )
