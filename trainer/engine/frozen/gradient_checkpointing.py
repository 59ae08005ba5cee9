"""How much of the UNet's forward pass is recomputed in the backward pass instead of being kept."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainer.contract.settings.model import Checkpointing
from trainer.contract.wording import setting
from trainer.engine.errors import NothingToSave


def apply_level(unet: nn.Module, level: Checkpointing) -> int:
    """Turn on gradient checkpointing; predictions stay bit-exact.

    To be called once, after everything else that replaces a module's forward pass.

    Args:
        unet: diffusers' UNet, with adapter or without.
        level: Recompute the feed-forward layers of all transformer blocks, whole transformer blocks, or with "full" the
            residual layers too, by diffusers' own method.

    Returns:
        How many modules are recomputed in the backward pass.

    Raises:
        NothingToSave: The level asks for gradient checkpointing, and the model has nothing to recompute.
    """
    blocks = [module for module in unet.modules() if isinstance(module, BasicTransformerBlock)]
    if level == "full" and getattr(unet, "_supports_gradient_checkpointing", False):
        cast("Any", unet).enable_gradient_checkpointing()
        count = sum(bool(getattr(module, "gradient_checkpointing", False)) for module in unet.modules())
    else:
        parts = {"feed_forward": [block.ff for block in blocks], "blocks": blocks}.get(level, [])
        for part in parts:
            part.forward = _Recomputed(part.forward)
        count = len(parts)
    if level != "none" and not count:
        off, saving = setting("model.gradient_checkpointing", "none"), f'Gradient checkpointing "{level}"'
        raise NothingToSave(saving=saving, parts="blocks that it can recompute", instead=off)
    return count


class _Recomputed:
    """A forward pass of which only the inputs are kept; dropout within uses the same random mask both times."""

    def __init__(self, forward: Callable[..., Tensor]) -> None:
        self.plain = forward

    def __call__(self, *inputs: object, **named: object) -> Tensor:
        if not torch.is_grad_enabled():
            return self.plain(*inputs, **named)
        return cast("Tensor", checkpoint(partial(self.plain, **named), *inputs, use_reentrant=False))
