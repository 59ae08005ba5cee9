"""What can go wrong with automatic captions, as errors to act on.

CaptionerError: ExtraMissing · NotACaptioner · DownloadNeeded
CaptioningBusy (a RunError)
"""

from collections.abc import Sequence
from pathlib import Path

from trainer.contract.errors import TrainerError
from trainer.contract.wording import setting
from trainer.runs.errors import RunError


class CaptionerError(TrainerError):
    """A captioner cannot be used."""

    code = "captioner"


class ExtraMissing(CaptionerError):
    """A library that only this captioner needs is not installed."""

    code = "extra_missing"

    def __init__(self, label: str, module: str, command: str) -> None:
        super().__init__(f"{label} needs {module}, which is not installed.", hint=f"Type: {command}")


class NotACaptioner(CaptionerError):
    """A folder, or a repository of the hub, does not hold such a model."""

    code = "not_a_captioner"

    def __init__(self, label: str, place: Path | str, lacking: Sequence[str], repository: str) -> None:
        super().__init__(
            f"{place} cannot be used by {label}: {', '.join(lacking)}.",
            hint=f"Give a folder that holds the model's files, or a name on the Hugging Face hub such as {repository}.",
        )


class DownloadNeeded(CaptionerError):
    """The model is not on this computer, and fetching it was not allowed yet."""

    code = "download_needed"

    def __init__(self, label: str, name: str, amount: str) -> None:
        super().__init__(
            f"{label} needs {name}, {amount} that are not on this computer.",
            hint=f"Allow the download ({setting('download')}), or give a folder with the model ({setting('model')}).",
        )


class CaptioningBusy(RunError):
    """A process is captioning this folder."""

    code = "captioning_busy"

    def __init__(self, folder: str, pid: int | None) -> None:
        who = "another process" if pid is None else f"process {pid}"
        super().__init__(f"The images of {folder} are being captioned by {who}.", "Stop it first, or wait for it.")
