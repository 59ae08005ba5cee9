"""LoRA layers computed by one function instead of peft's dozen operations; peft stays the owner of the weights.

peft casts the layer's input to the adapter's float32 and autocast casts it back, and every operation keeps its own
input for the backward pass. Here the input is kept once, the scale is folded into the products, the update is added in
place, and all layers' weights are cast by one operation. Only for half-precision bases: in float32 plain operations are
faster (measured, ADR 6).
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from peft.tuners import lora
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trainer.engine.adapters.lora import NAME, Adapter, LiveLayer, PerSample
from trainer.engine.families.base import Family
from trainer.engine.frozen.lean_layers import Entry, Gate, Geglu, Normed, NormedInGroups


class LoraFunction(torch.autograd.Function):
    """x W^T + b + scaling · (x A^T) B^T, for a frozen W; gradients for x, A (r, in) and B (out, r)."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd takes no keywords
        ctx: Any,  # noqa: ANN401 - torch's context has no type
        kept: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scaling: float,
        entry: Entry | None = None,
    ) -> Tensor:
        """(B, …, in) to (N, out), all in one dtype; x is what the entry, if there is one, makes of what is kept."""
        x = _rows(entry.ahead(kept) if entry else kept)
        hidden = x @ down.t()
        ctx.save_for_backward(kept, hidden, weight, down, up)
        ctx.scaling, ctx.entry = scaling, entry
        return F.linear(x, weight, bias).addmm_(hidden, up.t(), alpha=scaling)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Gradients in the order of forward's arguments."""
        kept, hidden, weight, down, up = ctx.saved_tensors
        back = grad @ up
        of_up = _scaled(ctx.scaling, grad.t(), hidden)
        of_kept, x = None, kept
        if ctx.needs_input_grad[0]:
            of_kept = (grad @ weight).addmm_(back, down, alpha=ctx.scaling).view(*kept.shape[:-1], -1)
            if ctx.entry:
                of_kept, x = ctx.entry.back(of_kept, kept)
        elif ctx.entry:
            x = ctx.entry.ahead(kept)
        return of_kept, None, None, _scaled(ctx.scaling, back.t(), _rows(x)), of_up, None, None


def _rows(x: Tensor) -> Tensor:
    """(…, C) as (N, C)."""
    return x.reshape(-1, x.shape[-1])


def _scaled(factor: float, one: Tensor, other: Tensor) -> Tensor:
    """factor · one other, by one operation: with beta 0 the first argument lends its shape alone."""
    return torch.addmm(other[0], one, other, beta=0, alpha=factor)


class _Shadow(torch.autograd.Function):
    """Copies of all weights in another dtype, matrices, as one operation; gradients come back as one too."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
        """One (rows, columns) for each weight (rows, columns, 1, …)."""
        ctx.set_materialize_grads(False)
        ctx.shapes = [weight.shape for weight in weights]
        return tuple(_flat_copies([weight.flatten(1) for weight in weights], dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """The gradients in float32, side by side in one tensor; None for weights that were not used."""
        copies = iter(_flat_copies([grad for grad in grads if grad is not None], torch.float32))
        both = zip(grads, ctx.shapes, strict=True)
        return None, *(None if grad is None else next(copies).view(shape) for grad, shape in both)


def _flat_copies(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    flat = torch.empty(sum(tensor.numel() for tensor in tensors), dtype=dtype, device=tensors[0].device)
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    copies = [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
    torch._foreach_copy_(copies, list(tensors))
    return copies


class HalfWeights:
    """One component's fused weights in the base's dtype, copied again at the start of each of its forward passes.

    Not only when they have changed: torch's fused optimizers do not count their changes. Copying keeps nothing for the
    backward pass, so that parts recomputed there may use a later copy.
    """

    def __init__(self, layers: Sequence[LiveLayer], dtype: torch.dtype) -> None:
        self._weights = [weight for live in layers for weight in (live.down, live.up)]
        self._dtype = dtype
        self._copies: tuple[Tensor, ...] = ()

    def copy(self, _module: nn.Module, _inputs: object) -> None:
        """A forward pre-hook of the component."""
        with torch.enable_grad():  # a preview must not take gradients from a part recomputed later
            self._copies = _Shadow.apply(self._dtype, *self._weights)  # type: ignore[no-untyped-call]

    def of(self, layer: int) -> tuple[Tensor, Tensor]:
        """Down (r, in) and up (out, r) of the layer with this number."""
        return self._copies[2 * layer], self._copies[2 * layer + 1]


def fuse(family: Family, adapter: Adapter, dropout: float) -> int:
    """Let the adapter's layers compute by `LoraFunction` where it is faster; returns how many do."""
    chosen = [live for live in adapter.layers.values() if not dropout and _fusible(live)]
    for component in {live.slot.component for live in chosen}:
        layers = [live for live in chosen if live.slot.component == component]
        weights = HalfWeights(layers, _base_weight(layers[0]).dtype)
        family.component(component).register_forward_pre_hook(weights.copy)
        for number, live in enumerate(layers):
            # An instance's forward goes before its class's; state, names and switches stay peft's
            live.layer.forward = _Forward(live, weights, number)
    return len(chosen)


def _base_weight(live: LiveLayer) -> Tensor:
    return cast("Tensor", live.layer.get_base_layer().weight)


def _fusible(live: LiveLayer) -> bool:
    base = live.layer.get_base_layer()
    if _base_weight(live).dtype not in (torch.bfloat16, torch.float16):
        return False
    if type(base) is nn.Conv2d:
        plain = base.kernel_size == base.stride == base.dilation == (1, 1) and base.padding == (0, 0)
        return isinstance(live.layer, lora.Conv2d) and plain and base.groups == 1
    return type(base) is nn.Linear and isinstance(live.layer, lora.Linear)


class _Forward:
    """A layer's forward pass; with the adapter switched off it is the base's."""

    def __init__(self, live: LiveLayer, weights: HalfWeights, number: int) -> None:
        self.live, self.weights, self.number = live, weights, number
        self.base = cast("nn.Linear | nn.Conv2d", live.layer.get_base_layer())
        self.flat_weight = self.base.weight.detach().flatten(1)
        self.entry: Entry | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """A 1 x 1 convolution over (B, C, h, w) is a linear layer over its B·h·w places."""
        spatial = isinstance(self.base, nn.Conv2d)
        kept = x.movedim(1, -1) if spatial else x
        if self.live.layer.disable_adapters:
            ready = self.entry.ahead(kept) if self.entry else kept
            return cast("Tensor", self.base(ready.movedim(-1, 1) if spatial else ready))
        down, up = self.weights.of(self.number)
        scaling = self.live.layer.scaling[NAME]
        kept = kept.to(self.flat_weight.dtype)
        if isinstance(scaling, PerSample):
            ready = self.entry.ahead(kept) if self.entry else kept
            made = F.linear(ready, self.flat_weight, self.base.bias) + ready @ down.t() @ up.t() * scaling
        else:
            made = LoraFunction.apply(  # type: ignore[no-untyped-call]
                kept, self.flat_weight, self.base.bias, down, up, scaling, self.entry
            )
            made = made.view(*kept.shape[:-1], -1)
        return made.movedim(-1, 1) if spatial else made


def fuse_entries(unet: nn.Module) -> int:
    """Let layers keep what their norm or gate is given, not also what it makes; returns how many entries do.

    A norm before a fused layer that alone reads it passes its input on, and the layer norms it for itself. To be called
    after `fuse`.
    """
    count = 0
    for block in unet.modules():
        if isinstance(block, Transformer2DModel) and block.is_input_continuous:
            count += _hand_over(block.norm, block.proj_in)
        if not isinstance(block, BasicTransformerBlock) or not _plain_block(block):
            continue
        gate, _, last = block.ff.net
        count += _hand_over(block.norm2, block.attn2.to_q) + _hand_over(block.norm3, gate.proj)
        if isinstance(last.forward, _Forward):
            last.forward.entry, gate.forward = Gate(), gate.proj.__call__
        else:
            gate.forward = _Geglu(gate.proj)
        count += 1
    return count


def _plain_block(block: BasicTransformerBlock) -> bool:
    """Whether it is a transformer block as Stable Diffusion's UNets have them."""
    net, cross = block.ff.net, block.attn2
    return (
        block.norm_type == "layer_norm"
        and block.pos_embed is None
        and len(net) == 3
        and type(net[0]) is GEGLU
        and type(net[1]) is nn.Dropout
        and net[1].p == 0
        and cross is not None
        and cross.is_cross_attention
        and isinstance(cross.processor, AttnProcessor2_0)
    )


def _hand_over(norm: Any, layer: Any) -> bool:  # noqa: ANN401 - no type checker lets a forward pass be replaced
    """Whether the layer norms for itself from now on."""
    if not isinstance(layer.forward, _Forward) or norm.weight is None or norm.weight.requires_grad:
        return False
    entry = NormedInGroups(norm) if isinstance(norm, nn.GroupNorm) else Normed(norm)
    norm.forward, layer.forward.entry = nn.Identity().forward, entry
    return True


class _Geglu:
    """The forward pass of a gate whose product goes to a layer without adapter."""

    def __init__(self, proj: nn.Module) -> None:
        self.proj = proj

    def __call__(self, x: Tensor) -> Tensor:
        made: Tensor = Geglu.apply(self.proj(x))  # type: ignore[no-untyped-call]
        return made
