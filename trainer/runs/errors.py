"""What can be wrong with a run's folder or process."""

from trainer.contract.errors import TrainerError
from trainer.contract.wording import action


class RunError(TrainerError):
    """A run folder cannot be used."""

    code = "run"


def spoken(pid: int | None) -> str:
    """Returns a process in words: "process 4711", or "another process" if it is not known which."""
    return "another process" if pid is None else f"process {pid}"


class RunMissing(RunError):
    """No such run."""

    code = "run_missing"
    what = 'No run called "{name}".'
    remedy = "Give a run's name or its folder. {newest}"

    def __init__(self, name: str, known: list[str]) -> None:
        newest = f"The newest are: {', '.join(known)}." if known else "There are no runs yet."
        super().__init__(name=name, newest=newest)


class RunBusy(RunError):
    """A process is training in this run folder."""

    code = "run_busy"
    what = 'The run "{name}" is being trained by {process}.'
    remedy = "Stop it first, or wait for it."


class TrainerEnded(RunError):
    """The trainer's process ended without a reason: killed, or out of memory."""

    code = "trainer_ended"
    what = "The trainer process ended unexpectedly (exit code {exit_code}); {log} may say why."
    remedy = f"Resume from the last checkpoint: {action('resume', '{name}')}"


class ResumeRefused(RunError):
    """The run's inputs have changed."""

    code = "resume_refused"
    what = "The run cannot be resumed: {why}."
    remedy = "Restore it, then resume. {anyway}"


class InputsMissing(RunError):
    """Images, base model or VAE are not where the run's settings say."""

    code = "inputs_missing"
    what = "The run's files are not where they were: {seen}."
    remedy = "Connect the disk that holds them; or, if they were moved or renamed, say where they are now: {resume}"


class CheckpointsDamaged(RunError):
    """The run has checkpoints, and none of them is as it was written."""

    code = "checkpoints_damaged"
    what = "The run cannot be resumed: all its checkpoints in {folder} are damaged ({names})."
    remedy = "Restore the folder from a backup, or start a new run; the LoRA files beside it are untouched."


class NewerVersion(RunError):
    """A file was written by a newer version in a format that this one does not know."""

    code = "newer_version"
    what = "{name} was written by a newer version of Atelier (format {seen}; this one reads up to {known})."
    remedy = "Update Atelier, or use the version that wrote it. Nothing was changed."


class ComputersDiffer(RunError):
    """Computers that train a run together differ in what must be equal."""

    code = "computers_differ"
    what = "The computers have different {things}: {seen}."
    remedy = "Copy the first computer's run folder, images and captions to the others."
