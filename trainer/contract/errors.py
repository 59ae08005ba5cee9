"""Everything a user can run into, as one tree of errors: what happened, the value seen, what to do.

TrainerError
├── InvalidSettings · UnknownPreset
├── DatasetError: FolderMissing · NoImages · NothingToTrain · UnreadableImage
├── ModelError: BaseModelMissing · NotABaseModel · UnsupportedModel; more in huberrors.py and convert.py
├── TrainingError: NonFiniteLoss · NonFiniteLatents · DiskFull · DiskShort · OutOfMemory · Terminated · DeviceLost ·
│   ProcessLost · ComputersApart
├── RunError: RunMissing · RunBusy · TrainerEnded · ResumeRefused · NewerVersion · ComputersDiffer
├── ExportError: ProofFailed · FileExists
├── LoraRefused
└── SystemRefused · BrokenInstall · Unexpected, all in systemerrors.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class TrainerError(Exception):
    """An error the user can act on; `str()` of it is the message alone."""

    code = "error"

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
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


class DatasetError(TrainerError):
    """The pictures cannot be used."""

    code = "dataset"


class FolderMissing(DatasetError):
    """The picture folder is not there, or is not a folder."""

    code = "folder_missing"

    def __init__(self, folder: Path) -> None:
        state = "is a file, not a folder" if folder.is_file() else "does not exist"
        super().__init__(f"The picture folder {folder} {state}.", hint="Give the folder that holds your pictures.")


class NoImages(DatasetError):
    """The folder holds nothing that can be trained on."""

    code = "no_images"

    def __init__(self, folder: Path, other_files: int) -> None:
        super().__init__(
            f"No pictures in {folder} ({other_files} other files).",
            hint="Choose a folder that holds .jpg, .png or .webp files.",
        )


class NothingToTrain(DatasetError):
    """There are pictures, but none of them can be used."""

    code = "nothing_to_train"

    def __init__(self, folder: Path, why: str) -> None:
        super().__init__(
            f"None of the pictures in {folder} can be trained: {why}.",
            hint="Add pictures that a picture viewer opens, or take some back that were left out.",
        )


class UnreadableImage(DatasetError):
    """A picture cannot be decoded."""

    code = "unreadable_image"

    def __init__(self, path: Path, cause: str) -> None:
        self.path = path
        self.cause = cause
        super().__init__(
            f"The picture {path} cannot be read: {cause}.",
            hint="Open it in a picture viewer and save it again, or take it out of the folder.",
        )


class ModelError(TrainerError):
    """The base model cannot be used."""

    code = "model"


class BaseModelMissing(ModelError):
    """Nothing at the base model's path."""

    code = "base_model_missing"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"No base model at {path}.",
            hint="Give a .safetensors file, a folder in the diffusers layout (it holds model_index.json), a name on "
            'the Hugging Face hub (owner/name), that of a model on this computer (--models), or "pocket".',
        )


class NotABaseModel(ModelError):
    """The path exists but holds something else."""

    code = "not_a_base_model"

    def __init__(self, path: Path, seen: str) -> None:
        self.seen = seen
        super().__init__(
            f"{path} is not a base model that can be trained on: {seen}.",
            hint="Choose a Stable Diffusion 1.x, 2.x or SDXL model: one .safetensors file, or a folder in the "
            "diffusers layout.",
        )


class UnsupportedModel(ModelError):
    """A part of the installed libraries is named otherwise than the file format expects."""

    code = "unsupported_model"


class TrainingError(TrainerError):
    """Training could not go on; what was saved stays."""

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
        super().__init__(f"The VAE returned non-finite values for {path}.", hint="Set --model.precision fp32.")


class DiskFull(TrainingError):
    """No space left while writing."""

    code = "disk_full"

    def __init__(self, detail: str) -> None:
        super().__init__(
            f"The disk is full: {detail}.", hint="Free some space, then resume; the last checkpoint is whole."
        )


class OutOfMemory(TrainingError):
    """The device ran out of memory."""

    code = "out_of_memory"

    def __init__(self, detail: str, hint: str = "Close other programs, or set a smaller --dataset.resolution.") -> None:
        super().__init__(f"Out of memory: {detail}.", hint)


class Terminated(TrainingError):
    """The system, or a launcher whose other process failed, asked the trainer to end."""

    code = "terminated"

    def __init__(self) -> None:
        super().__init__("The trainer was ended from outside (SIGTERM).", hint="Resume it from its last checkpoint.")


class DeviceLost(TrainingError):
    """The graphics card no longer answers: its driver was restarted, it fell off the bus, or somebody took it away."""

    code = "device_lost"

    def __init__(self, detail: str) -> None:
        super().__init__(
            f"The graphics card no longer answers: {detail}.",
            hint="Resume the run from its last checkpoint; if it happens again, restart the computer or its driver.",
        )


class DiskShort(TrainingError):
    """The disk has less room than the run will write."""

    code = "disk_short"

    def __init__(self, folder: Path, needed: str, free: str, missing: str) -> None:
        super().__init__(
            f"The run will write {needed} to {folder}, and {free} are free there: {missing} are missing.",
            hint="Free some space, or set fewer --output.files or --output.keep_checkpoints, or a smaller "
            "--adapter.rank.",
        )


class ProcessLost(TrainingError):
    """One of the processes that train a run together is gone."""

    code = "process_lost"

    def __init__(self, what: str) -> None:
        super().__init__(
            f"One of the run's processes ended unexpectedly: {what}.",
            hint="Resume the run from its last checkpoint. log.txt says more; after SIGKILL memory was probably short.",
        )


class ComputersApart(TrainingError):
    """The computers that are to train a run together have not found each other."""

    code = "computers_apart"

    def __init__(self, detail: str) -> None:
        super().__init__(
            f"The computers did not find each other: {detail}.",
            hint="Start the same command on each, with the first one's address and a port that is free there, and let "
            "firewalls pass it.",
        )


class RunError(TrainerError):
    """A run folder cannot be used."""

    code = "run"


class RunMissing(RunError):
    """No such run."""

    code = "run_missing"

    def __init__(self, name: str, known: list[str]) -> None:
        newest = f" The newest are: {', '.join(known)}." if known else " There are no runs yet."
        super().__init__(f'No run called "{name}".', hint=f"Give a run's name or its folder.{newest}")


class RunBusy(RunError):
    """A process is training in this run folder."""

    code = "run_busy"

    def __init__(self, name: str, pid: int | None) -> None:
        who = "another process" if pid is None else f"process {pid}"
        super().__init__(f'The run "{name}" is being trained by {who}.', hint="Stop it first, or wait for it.")


class TrainerEnded(RunError):
    """The trainer's process is gone and has not said why: killed, or short of memory."""

    code = "trainer_ended"

    def __init__(self, name: str, exit_code: int, log: Path) -> None:
        super().__init__(
            f"The trainer process ended unexpectedly (exit code {exit_code}); {log} may say why.",
            hint=f"Go on from the last checkpoint: python launch.py --resume {name}",
        )


class ResumeRefused(RunError):
    """The run's inputs are no longer what they were."""

    code = "resume_refused"

    def __init__(self, what: str, anyway: str = "Or start a new run with what is there now.") -> None:
        super().__init__(f"The run cannot go on: {what}.", hint=f"Put it back as it was, then resume. {anyway}")


class NewerVersion(RunError):
    """A file was written by a later version of this program, in a form that this one does not know."""

    code = "newer_version"

    def __init__(self, what: str, seen: object, known: int) -> None:
        super().__init__(
            f"{what} was written by a newer version of Atelier (format {seen}; this one reads up to {known}).",
            hint="Update Atelier, or use the version that wrote it. Nothing was changed.",
        )


class ComputersDiffer(RunError):
    """What the computers that train a run together must have in common, they have not."""

    code = "computers_differ"

    def __init__(self, what: str, seen: Sequence[object]) -> None:
        super().__init__(
            f"The computers hold different {what}: {', '.join(str(value) for value in seen)}.",
            hint="Copy the first computer's run folder, pictures and captions to the others.",
        )


class ExportError(TrainerError):
    """The LoRA file could not be written or proved."""

    code = "export"


class ProofFailed(ExportError):
    """The written file, read back, is not the trained adapter."""

    code = "proof_failed"

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"The written LoRA file does not match the training: {problem}.",
            hint="The file was not kept; the checkpoint is. Please report this with the run's log.txt.",
        )


class FileExists(ExportError):
    """An output of that name is there already and is never overwritten."""

    code = "file_exists"

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} exists already.", hint="Move it away or choose another name.")


class LoraRefused(TrainerError):
    """A LoRA file cannot be read, or does not fit the layers that are trained."""

    code = "lora_refused"

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path.name} {why}.",
            hint="Choose a LoRA file of this base model, made with the same adapter.targets and adapter.text_encoder.",
        )


@contextmanager
def isolated(
    what: str, report: Callable[[str, str, str], None], hint: str = "Training goes on without it."
) -> Iterator[None]:
    """Run work that may fail alone (a preview, a thumbnail): a failure becomes a warning, never the end of a run.

    Args:
        what: The work in a few words, for the message.
        report: Called with code, message and hint when the work fails.
        hint: What to do about a failure that none of our own errors tells of.
    """
    try:
        yield
    except Terminated:
        raise  # the system's word to end is meant for the whole process
    except TrainerError as error:
        report(error.code, f"{what}: {error.message}", error.hint)
    except Exception as error:  # noqa: BLE001 - the one broad catch, for work whose failure must not end a run
        report("isolated_failure", f"{what} failed: {type(error).__name__}: {error}", hint)
