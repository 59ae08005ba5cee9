"""Errors that only the engine knows: memory savings without effect, and what PyTorch and its libraries raise."""

import torch

from trainer.contract.errors import DeviceLost, OutOfMemory, ProcessLost, TrainerError, TrainingError
from trainer.contract.system_errors import Unexpected
from trainer.engine.device import out_of_memory


class NothingToSave(TrainingError):
    """A memory saving found no part of the model to act on, so it would silently save nothing."""

    code = "nothing_to_save"
    what = "{saving} would save nothing: this base model has no {parts}."
    remedy = "Set {instead}."


class EntryGone(TrainingError):
    """What was encoded before the training is no longer in the cache."""

    code = "cache_entry_gone"
    what = "The cache's file {file} was deleted or damaged during the training."
    remedy = "Resume the run: what is missing is encoded again, and nothing is lost."


def named(error: Exception) -> TrainerError:
    """The error of ours for what a library raised; `Unexpected` for what has no name here."""
    short = out_of_memory(error)
    if short:
        return OutOfMemory(detail=short)
    if isinstance(error, torch.AcceleratorError):
        return DeviceLost(detail=str(error).splitlines()[0])
    if isinstance(error, torch.distributed.DistError) or "gloo" in str(error):  # gloo has no error of its own
        return ProcessLost(which="the connection to it broke")
    return Unexpected(kind=type(error).__name__, error=error)
