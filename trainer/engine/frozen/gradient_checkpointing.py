"""How much of the UNet's forward pass is computed again in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainer.contract.settings.model import Checkpointing


def apply_level(unet: nn.Module, level: Checkpointing) -> int:
    """Recompute these parts from now on; gives back how many. The answers stay the same to the bit.

    To be called once, after everything else that gives modules a forward pass of their own.

    Args:
        unet: diffusers' UNet, with adapter or without.
        level: The feed-forward layers of all transformer blocks, those blocks whole, or with "full" the residual layers
            too, as diffusers does it.
    """
    blocks = [module for module in unet.modules() if isinstance(module, BasicTransformerBlock)]
    if level == "full":
        cast("Any", unet).enable_gradient_checkpointing()
        return sum(bool(getattr(module, "gradient_checkpointing", False)) for module in unet.modules())
    parts = {"none": [], "feed_forward": [block.ff for block in blocks], "blocks": blocks}[level]
    for part in parts:
        part.forward = _Recomputed(part.forward)
    return len(parts)


class _Recomputed:
    """A forward pass of which only the inputs are kept; a dropout within draws the same both times."""

    def __init__(self, forward: Callable[..., Tensor]) -> None:
        self.plain = forward

    def __call__(self, *inputs: object, **named: object) -> Tensor:
        if not torch.is_grad_enabled():
            return self.plain(*inputs, **named)
        return cast("Tensor", checkpoint(partial(self.plain, **named), *inputs, use_reentrant=False))
