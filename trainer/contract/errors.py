"""Errors the user can act on: what happened, the value seen, what to do; each package has more in its `errors.py`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trainer.contract.wording import for_console, setting


class TrainerError(Exception):
    """An error the user can act on; `str()` of it is the message alone, as the console words it.

    A kind declares `what` happened and the `remedy` as templates (str.format) and is raised with their parameters by
    name; where the words depend on the place, a message and a hint are given instead.
    """

    code = "error"
    what = ""
    remedy = ""

    def __init__(self, message: str = "", hint: str = "", **parameters: object) -> None:
        self.message = message or self.what.format(**parameters)
        self.hint = hint or self.remedy.format(**parameters)
        self.parameters = parameters
        super().__init__(for_console(self.message))


class InvalidSettings(TrainerError):
    """A setting is unknown, out of range, or contradicts another; `places` says what is wrong with which setting."""

    code = "invalid_settings"

    def __init__(
        self, message: str = "", hint: str = "", places: dict[str, str] | None = None, **parameters: object
    ) -> None:
        super().__init__(message, hint, **parameters)
        self.places = places or {}


class UnknownPreset(TrainerError):
    """No preset of that name."""

    code = "unknown_preset"
    what = 'No preset called "{name}".'
    remedy = "Choose one of: {known}."


class TrainingError(TrainerError):
    """Training cannot continue; what was saved stays."""

    code = "training"


class NonFiniteLoss(TrainingError):
    """The loss, a gradient or a weight became NaN or infinite; `what` says which."""

    code = "non_finite_loss"
    what = "The {value} at step {step} (learning rate {learning_rate:g}): {cause}."

    def __init__(self, what: str, step: int, learning_rate: float, cause: tuple[str, str]) -> None:
        self.cause, hint = cause
        super().__init__(hint=hint, value=what, step=step, learning_rate=learning_rate, cause=self.cause)


class NonFiniteLatents(TrainingError):
    """The VAE returned NaN or infinite values."""

    code = "non_finite_latents"
    what = "The VAE returned NaN or infinity for {path}."
    remedy = f"Set {setting('model.precision', 'fp32')}."


class DiskFull(TrainingError):
    """No space left while writing."""

    code = "disk_full"
    what = "The disk is full: {detail}."
    remedy = "Free some space, then resume; the last checkpoint is intact."


class OutOfMemory(TrainingError):
    """The device ran out of memory."""

    code = "out_of_memory"
    what = "Out of memory: {detail}."
    remedy = f"Close other programs, or set a smaller {setting('dataset.resolution')}."


class Terminated(TrainingError):
    """The system, or a launcher whose other process failed, terminated the trainer."""

    code = "terminated"
    what = "The trainer was terminated from outside (SIGTERM)."
    remedy = "Resume it from its last checkpoint."


class DeviceLost(TrainingError):
    """The GPU no longer responds: its driver was restarted, it fell off the bus, or it was removed."""

    code = "device_lost"
    what = "The graphics card no longer responds: {detail}."
    remedy = "Resume the run from its last checkpoint; if it happens again, restart the computer or its driver."


class DiskShort(TrainingError):
    """The disk has less free space than the run will write."""

    code = "disk_short"
    what = "The run will write {needed} to {folder}, but only {free} are free: {missing} are missing."
    remedy = (
        f"Free some space, or set fewer {setting('output.files')} or {setting('output.keep_checkpoints')}, or a "
        f"smaller {setting('adapter.rank')}."
    )


class ProcessLost(TrainingError):
    """One of the processes that train a run together is gone."""

    code = "process_lost"
    what = "One of the run's processes ended unexpectedly: {which}."
    remedy = "Resume the run from its last checkpoint. log.txt says more; SIGKILL usually means out of memory."


class ComputersApart(TrainingError):
    """The computers of a distributed run have not found each other."""

    code = "computers_apart"
    what = "The computers did not find each other: {detail}."
    remedy = (
        "Start the same command on each, with the first one's address and a port that is free there, and allow it in "
        "firewalls."
    )


class ExportError(TrainerError):
    """The LoRA file could not be written or verified."""

    code = "export"


class ProofFailed(ExportError):
    """The written file, read back, differs from the trained adapter."""

    code = "proof_failed"
    what = "The written LoRA file does not match the training: {problem}."
    remedy = "The file was not kept; the checkpoint is. Please report this with the run's log.txt."


class FileExists(ExportError):
    """An output of that name exists and is never overwritten."""

    code = "file_exists"
    what = "{path} exists already."
    remedy = "Move it away or choose another name."


@contextmanager
def isolated(
    what: str, report: Callable[[str, str, str], None], hint: str = "Training continues without it."
) -> Iterator[None]:
    """Run work that may fail alone (a preview, a thumbnail): a failure becomes a warning, never the end of a run.

    Args:
        what: The work in a few words, for the message.
        report: Called with code, message and hint when the work fails.
        hint: What to do about an error that is not a TrainerError.
    """
    try:
        yield
    except Terminated:
        raise  # it ends the whole process
    except TrainerError as error:
        report(error.code, f"{what}: {error.message}", error.hint)
    except Exception as error:  # noqa: BLE001 - the one broad catch, for work whose failure must not end a run
        report("isolated_failure", f"{what} failed: {type(error).__name__}: {error}", hint)
