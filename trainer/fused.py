"""LoRA layers computed by one function instead of peft's dozen operations; peft stays the owner of the weights.

peft casts the layer's input to the adapter's float32 and autocast casts it back, and every operation keeps its own
input for the backward pass. Here the input is kept once, the scale is folded into the products, and the update is
added in place. Only for half-precision bases: in float32 plain operations are faster (measured, ADR 6).
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from peft.tuners import lora
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trainer.adapters import Adapter, LiveLayer


class LoraFunction(torch.autograd.Function):
    """x W^T + b + scaling · (x A^T) B^T, for a frozen W; gradients for x, A (r, in) and B (out, r)."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd takes no keywords
        ctx: Any,  # noqa: ANN401 - torch's context has no type
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scaling: float,
    ) -> Tensor:
        """(N, in) in the base's dtype to (N, out)."""
        down, up = down.to(x.dtype), up.to(x.dtype)
        hidden = x @ down.t()
        ctx.save_for_backward(x, hidden, weight, down, up)
        ctx.scaling = scaling
        return F.linear(x, weight, bias).addmm_(hidden, up.t(), alpha=scaling)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Gradients in the order of forward's arguments; those of A and B in float32."""
        x, hidden, weight, down, up = ctx.saved_tensors
        back = grad @ up
        of_x = (grad @ weight).addmm_(back, down, alpha=ctx.scaling) if ctx.needs_input_grad[0] else None
        of_down = (back.t() @ x).float().mul_(ctx.scaling)
        of_up = (grad.t() @ hidden).float().mul_(ctx.scaling)
        return of_x, None, None, of_down, of_up, None


def fuse(adapter: Adapter, dropout: float) -> int:
    """Let the adapter's layers compute by `LoraFunction` where it wins; gives back how many do."""
    chosen = [live for live in adapter.layers.values() if not dropout and _fusible(live)]
    for live in chosen:
        # An instance's forward goes before its class's; state, names and switches stay peft's
        live.layer.forward = _Forward(live)
    return len(chosen)


def _fusible(live: LiveLayer) -> bool:
    base = live.layer.get_base_layer()
    weight = cast("Tensor", base.weight)
    if weight.dtype not in (torch.bfloat16, torch.float16):
        return False
    if type(base) is nn.Conv2d:
        plain = base.kernel_size == base.stride == base.dilation == (1, 1) and base.padding == (0, 0)
        return isinstance(live.layer, lora.Conv2d) and plain and base.groups == 1
    return type(base) is nn.Linear and isinstance(live.layer, lora.Linear)


class _Forward:
    """A layer's forward pass; with the adapter switched off it is the base's."""

    def __init__(self, live: LiveLayer) -> None:
        self.live = live
        self.base = cast("nn.Linear | nn.Conv2d", live.layer.get_base_layer())
        self.flat_weight = self.base.weight.detach().flatten(1)

    def __call__(self, x: Tensor) -> Tensor:
        """A 1 x 1 convolution over (B, C, h, w) is a linear layer over its B·h·w places."""
        if self.live.layer.disable_adapters:
            return cast("Tensor", self.base(x))
        places = x.movedim(1, -1) if isinstance(self.base, nn.Conv2d) else x
        flat = places.reshape(-1, places.shape[-1]).to(self.flat_weight.dtype)
        live = self.live
        down, up = live.down.flatten(1), live.up.flatten(1)
        made: Tensor = LoraFunction.apply(flat, self.flat_weight, self.base.bias, down, up, live.scaling)  # type: ignore[no-untyped-call]
        made = made.view(*places.shape[:-1], -1)
        return made.movedim(-1, 1) if isinstance(self.base, nn.Conv2d) else made
