"""What can be wrong with a run's folder or process."""

from collections.abc import Sequence
from pathlib import Path

from trainer.contract.errors import TrainerError
from trainer.contract.wording import action


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
    """The trainer's process ended without a reason: killed, or out of memory."""

    code = "trainer_ended"

    def __init__(self, name: str, exit_code: int, log: Path) -> None:
        super().__init__(
            f"The trainer process ended unexpectedly (exit code {exit_code}); {log} may say why.",
            hint=f"Resume from the last checkpoint: {action('resume', name)}",
        )


class ResumeRefused(RunError):
    """The run's inputs have changed."""

    code = "resume_refused"

    def __init__(self, what: str, anyway: str = "Or start a new run.") -> None:
        super().__init__(f"The run cannot be resumed: {what}.", hint=f"Restore it, then resume. {anyway}")


class NewerVersion(RunError):
    """A file was written by a newer version in a format that this one does not know."""

    code = "newer_version"

    def __init__(self, what: str, seen: object, known: int) -> None:
        super().__init__(
            f"{what} was written by a newer version of Atelier (format {seen}; this one reads up to {known}).",
            hint="Update Atelier, or use the version that wrote it. Nothing was changed.",
        )


class ComputersDiffer(RunError):
    """Computers that train a run together differ in what must be equal."""

    code = "computers_differ"

    def __init__(self, what: str, seen: Sequence[object]) -> None:
        super().__init__(
            f"The computers have different {what}: {', '.join(str(value) for value in seen)}.",
            hint="Copy the first computer's run folder, images and captions to the others.",
        )
