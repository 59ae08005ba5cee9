"""AdamW over the adapter, and the learning rate as a plain function of the step."""

import math

import torch

from trainer.contract.settings.learning import OptimizerSettings
from trainer.engine.adapters.lora import Adapter


def learning_rate_factor(step: int, steps: int, settings: OptimizerSettings) -> float:
    """Share of the full learning rate at step 0, 1, … `steps` - 1: a linear rise, then the schedule's shape to zero."""
    rise = round(settings.warmup * steps)
    if step < rise:
        return (step + 1) / rise
    if settings.lr_scheduler == "constant":
        return 1.0
    left = 1 - (step - rise) / max(steps - rise, 1)
    if settings.lr_scheduler == "linear":
        return left
    return 0.5 * (1 + math.cos(math.pi * (1 - left)))


def make_optimizer(adapter: Adapter, settings: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW with one group per component, each remembering its full learning rate as `full_lr`."""
    groups = [
        {"params": parameters, "full_lr": settings.learning_rate if part == "unet" else settings.text_learning_rate}
        for part, parameters in adapter.groups().items()
    ]
    return torch.optim.AdamW(
        groups,
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        weight_decay=settings.weight_decay,
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Scale every group's learning rate; and return the first group's (the UNet's)."""
    for group in optimizer.param_groups:
        group["lr"] = group["full_lr"] * factor
    return float(optimizer.param_groups[0]["lr"])
