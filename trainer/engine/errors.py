"""Errors that only the engine knows: memory savings without effect, and what PyTorch and its libraries raise."""

import torch

from trainer.contract.errors import DeviceLost, OutOfMemory, ProcessLost, TrainerError, TrainingError
from trainer.contract.system_errors import Unexpected
from trainer.contract.wording import setting
from trainer.engine.device import out_of_memory


class NothingToSave(TrainingError):
    """A memory saving found no part of the model to act on, so it would silently save nothing."""

    code = "nothing_to_save"
    what = "{saving} would save nothing: this base model has no {parts}."
    remedy = "Set {instead}."


class NothingLearned(TrainingError):
    """The target of every view is the base model's own prediction, or masked out, so the LoRA stays as it was."""

    code = "nothing_learned"
    what = "Nothing is being learned: in the first {steps} steps loss and gradient were exactly 0."
    remedy = (
        f"Every view keeps the base model as it is: lower {setting('dataset.caption_dropout')}, or turn off "
        f"{setting('objective.keep_uncaptioned')}; raise {setting('objective.keep_from_timestep')}; or let masks show "
        "more."
    )


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
