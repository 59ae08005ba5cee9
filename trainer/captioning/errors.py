"""What can go wrong with automatic captions, as errors to act on."""

from trainer.contract.errors import TrainerError
from trainer.contract.wording import setting
from trainer.runs.errors import RunBusy, RunError


class CaptionerError(TrainerError):
    """A captioner cannot be used."""

    code = "captioner"


class ExtraMissing(CaptionerError):
    """A library that only this captioner needs is not installed."""

    code = "extra_missing"
    what = "{label} needs {module}, which is not installed."
    remedy = "Type: {command}"


class NotACaptioner(CaptionerError):
    """A folder, or a repository of the hub, does not hold such a model."""

    code = "not_a_captioner"
    what = "{place} cannot be used by {label}: {why}."
    remedy = "Give a folder that holds the model's files, or a name on the Hugging Face hub such as {repository}."


class DownloadNeeded(CaptionerError):
    """The model is not on this computer, and fetching it was not allowed yet."""

    code = "download_needed"
    what = "{label} needs {name}, {amount} that are not on this computer."
    remedy = f"Allow the download ({setting('download')}), or give a folder with the model ({setting('model')})."


class CaptioningBusy(RunError):
    """A process is captioning this folder."""

    code = "captioning_busy"
    what = "The images of {folder} are being captioned by {process}."
    remedy = RunBusy.remedy
