"""What PyTorch and its libraries raise, as errors to act on."""

from __future__ import annotations

import torch

from trainer.contract.errors import DeviceLost, OutOfMemory, ProcessLost, TrainerError
from trainer.contract.system_errors import Unexpected
from trainer.engine.device import out_of_memory


def named(error: Exception) -> TrainerError:
    """The error of ours for what a library raised; `Unexpected` for what has no name here."""
    short = out_of_memory(error)
    if short:
        return OutOfMemory(short)
    if isinstance(error, torch.AcceleratorError):
        return DeviceLost(str(error).splitlines()[0])
    if isinstance(error, torch.distributed.DistError) or "gloo" in str(error):  # gloo has no error of its own
        return ProcessLost("the connection to it broke")
    return Unexpected(error)
