"""What the processes of a run do in common; each of these is called by all of them, and one alone does it at once."""

from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor

from trainer.runs.errors import ComputersDiffer


def everywhere(accelerator: Accelerator, number: int) -> list[int]:
    """Every process's number, in the order of their ranks."""
    if accelerator.num_processes == 1:
        return [number]  # and no wait for the device
    return cast("Tensor", accelerator.gather(torch.tensor([number], device=accelerator.device))).tolist()


def check_alike(accelerator: Accelerator, what: str, number: int) -> None:
    """Refuse to train together on what is not the same; `number` stands for it.

    Raises:
        ComputersDiffer: Another process has another number.
    """
    seen = everywhere(accelerator, number)
    if len(set(seen)) > 1:
        raise ComputersDiffer(things=what, seen=", ".join(map(str, seen)))


def sum_gradients(accelerator: Accelerator, parameters: list[torch.nn.Parameter]) -> None:
    """Add up the processes' gradients as one flat tensor: a LoRA's are small, and no wrapper module is needed."""
    if accelerator.num_processes == 1:
        return
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    summed = cast("Tensor", accelerator.reduce(torch.cat([g.flatten() for g in grads]), "sum"))
    for parameter, grad in zip(parameters, torch.split(summed, [p.numel() for p in parameters]), strict=True):
        parameter.grad = grad.view_as(parameter)
