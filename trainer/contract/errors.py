"""Everything a user can run into, as one tree of errors: what happened, the value seen, what to do.

TrainerError
├── InvalidSettings · UnknownPreset
├── DatasetError: FolderMissing · NoImages · NothingToTrain · UnreadableImage
├── ModelError: BaseModelMissing · NotABaseModel · UnsupportedModel; more in models/
├── TrainingError: NonFiniteLoss · NonFiniteLatents · DiskFull · DiskShort · OutOfMemory · Terminated · DeviceLost ·
│   ProcessLost · ComputersApart
├── RunError: RunMissing · RunBusy · TrainerEnded · ResumeRefused · NewerVersion · ComputersDiffer
├── ExportError: ProofFailed · FileExists
├── LoraRefused
└── SystemRefused · BrokenInstall · Unexpected, all in system_errors.py
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.contract.wording import for_console, setting


class TrainerError(Exception):
    """An error the user can act on; `str()` of it is the message alone, as the console words it."""

    code = "error"

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(for_console(message))
        self.message = message
        self.hint = hint


class InvalidSettings(TrainerError):
    """A setting is unknown, out of range, or contradicts another; `places` says what is wrong with which setting."""

    code = "invalid_settings"

    def __init__(self, message: str, hint: str, places: dict[str, str] | None = None) -> None:
        super().__init__(message, hint)
        self.places = places or {}


class UnknownPreset(TrainerError):
    """No preset of that name."""

    code = "unknown_preset"

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f'No preset called "{name}".', hint=f"Choose one of: {', '.join(known)}.")


class TrainingError(TrainerError):
    """Training cannot continue; what was saved stays."""

    code = "training"


class NonFiniteLoss(TrainingError):
    """The loss, a gradient or a weight became NaN or infinite; `what` says which."""

    code = "non_finite_loss"

    def __init__(self, what: str, step: int, learning_rate: float, cause: tuple[str, str]) -> None:
        self.cause, hint = cause
        super().__init__(f"The {what} at step {step} (learning rate {learning_rate:g}): {self.cause}.", hint)


class NonFiniteLatents(TrainingError):
    """The VAE returned NaN or infinite values."""

    code = "non_finite_latents"

    def __init__(self, path: Path) -> None:
        hint = f"Set {setting('model.precision', 'fp32')}."
        super().__init__(f"The VAE returned NaN or infinity for {path}.", hint)


class DiskFull(TrainingError):
    """No space left while writing."""

    code = "disk_full"

    def __init__(self, detail: str) -> None:
        super().__init__(
            f"The disk is full: {detail}.", hint="Free some space, then resume; the last checkpoint is intact."
        )


class OutOfMemory(TrainingError):
    """The device ran out of memory."""

    code = "out_of_memory"

    def __init__(self, detail: str, hint: str = "") -> None:
        usual = f"Close other programs, or set a smaller {setting('dataset.resolution')}."
        super().__init__(f"Out of memory: {detail}.", hint or usual)


class Terminated(TrainingError):
    """The system, or a launcher whose other process failed, terminated the trainer."""

    code = "terminated"

    def __init__(self) -> None:
        super().__init__(
            "The trainer was terminated from outside (SIGTERM).", hint="Resume it from its last checkpoint."
        )


class DeviceLost(TrainingError):
    """The GPU no longer responds: its driver was restarted, it fell off the bus, or it was removed."""

    code = "device_lost"

    def __init__(self, detail: str) -> None:
        super().__init__(
            f"The graphics card no longer responds: {detail}.",
            hint="Resume the run from its last checkpoint; if it happens again, restart the computer or its driver.",
        )


class DiskShort(TrainingError):
    """The disk has less free space than the run will write."""

    code = "disk_short"

    def __init__(self, folder: Path, needed: str, free: str, missing: str) -> None:
        super().__init__(
            f"The run will write {needed} to {folder}, but only {free} are free: {missing} are missing.",
            hint=f"Free some space, or set fewer {setting('output.files')} or {setting('output.keep_checkpoints')}, or "
            f"a smaller {setting('adapter.rank')}.",
        )


class ProcessLost(TrainingError):
    """One of the processes that train a run together is gone."""

    code = "process_lost"

    def __init__(self, what: str) -> None:
        super().__init__(
            f"One of the run's processes ended unexpectedly: {what}.",
            hint="Resume the run from its last checkpoint. log.txt says more; SIGKILL usually means out of memory.",
        )


class ComputersApart(TrainingError):
    """The computers of a distributed run have not found each other."""

    code = "computers_apart"

    def __init__(self, detail: str) -> None:
        super().__init__(
            f"The computers did not find each other: {detail}.",
            hint="Start the same command on each, with the first one's address and a port that is free there, and "
            "allow it in firewalls.",
        )


class ExportError(TrainerError):
    """The LoRA file could not be written or verified."""

    code = "export"


class ProofFailed(ExportError):
    """The written file, read back, differs from the trained adapter."""

    code = "proof_failed"

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"The written LoRA file does not match the training: {problem}.",
            hint="The file was not kept; the checkpoint is. Please report this with the run's log.txt.",
        )


class FileExists(ExportError):
    """An output of that name exists and is never overwritten."""

    code = "file_exists"

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} exists already.", hint="Move it away or choose another name.")


@contextmanager
def isolated(
    what: str, report: Callable[[str, str, str], None], hint: str = "Training continues without it."
) -> Iterator[None]:
    """Run work that may fail alone (a preview, a thumbnail): a failure becomes a warning, never the end of a run.

    Args:
        what: The work in a few words, for the message.
        report: Called with code, message and hint when the work fails.
        hint: What to do about an error that is none of our own.
    """
    try:
        yield
    except Terminated:
        raise  # it ends the whole process
    except TrainerError as error:
        report(error.code, f"{what}: {error.message}", error.hint)
    except Exception as error:  # noqa: BLE001 - the one broad catch, for work whose failure must not end a run
        report("isolated_failure", f"{what} failed: {type(error).__name__}: {error}", hint)
