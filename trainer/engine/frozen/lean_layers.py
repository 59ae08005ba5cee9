"""Frozen layers that keep less for the backward pass and recompute what is cheap: all but matrix products.

torch keeps a convolution's input even where its weight is frozen, and between a norm and its activation the norm's
answer too. On a graphics card autocast moreover has norms read and answer in float32, twice the size.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input

WIDE_GROUP, MANY_PLACES = 32, 1024  # channels; MANY_PLACES is where torch's own kernel changes its way


class NormSilu(torch.autograd.Function):
    """silu(GroupNorm(x)) for a frozen norm; of all in between only x (B, C, h, w) is kept."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd takes no keywords
        ctx: Any,  # noqa: ANN401 - torch's context has no type
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        groups: int,
        eps: float,
    ) -> Tensor:
        """In x's dtype and shape."""
        ctx.save_for_backward(x, weight, bias)
        ctx.groups, ctx.eps = groups, eps
        return F.silu(_out(_normed(_laid_out(x, groups), weight, bias, groups, eps)[0]), inplace=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """The gradient for x alone."""
        x, weight, bias = ctx.saved_tensors
        ready = _laid_out(x, ctx.groups, back=True)
        normed, mean, rstd = _normed(ready, weight, bias, ctx.groups, ctx.eps)
        of_normed = torch.ops.aten.silu_backward(_laid_out(grad, ctx.groups, back=True), normed)
        of_x, _, _ = torch.ops.aten.native_group_norm_backward(
            of_normed, ready, mean, rstd, weight, *_sizes(x), ctx.groups, [True, False, False]
        )
        return _out(of_x), None, None, None, None


def _normed(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    return torch.native_group_norm(x, weight, bias, *_sizes(x), groups, eps)


def _sizes(x: Tensor) -> tuple[int, int, int]:
    """Samples, channels, places."""
    return x.shape[0], x.shape[1], x.shape[2:].numel()


def _laid_out(x: Tensor, groups: int, back: bool = False) -> Tensor:
    """Returns x in the memory format that norm kernels read fastest, which on the CPU depends on its shape (ADR 6).

    Channels last its kernels go through a group's channels place by place, unless the images are large and it is the
    forward pass: for narrow groups up to fifteen times as slow as through a copy.
    """
    _, channels, places = _sizes(x)
    narrow = channels // groups < (WIDE_GROUP if back else WIDE_GROUP // 2)
    plain = x.device.type != "cpu" or (narrow and (back or places < MANY_PLACES))
    return x.contiguous(memory_format=torch.contiguous_format if plain else torch.channels_last)


def _out(x: Tensor) -> Tensor:
    """Returns x in the memory format that convolutions read."""
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def normed_silu(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """silu(norm(x)); in the norm's own dtype, as the models are run in half precision, if x has it."""
    if x.dtype != norm.weight.dtype or x.ndim != 4:
        return F.silu(norm(x))
    made: Tensor = NormSilu.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps)  # type: ignore[no-untyped-call]
    return made


def fuse_norms(unet: nn.Module) -> int:
    """Let frozen norms keep their input alone, in its own dtype; returns how many do.

    In residual layers and before the last convolution they take in the activation that follows.
    """
    count = 0
    for module in cast("Iterator[Any]", unet.modules()):
        if _plain_resnet(module):
            module.forward = _Resnet(module)
            count += 2
        elif type(module) is UNet2DConditionModel and _frozen(module.conv_norm_out) and _is_silu(module.conv_act):
            module.conv_norm_out.forward = partial(normed_silu, module.conv_norm_out)
            module.conv_act.forward = nn.Identity().forward
            count += 1
        elif isinstance(module, (BasicTransformerBlock, Transformer2DModel)):
            norms = [child for child in module.children() if _frozen(child)]
            for norm in norms:
                norm.forward = _OwnPrecision(norm.forward, norm.weight.dtype)
            count += len(norms)
    return count


def _plain_resnet(module: nn.Module) -> bool:
    """Whether it is a residual layer as Stable Diffusion's UNets have them."""
    return (
        type(module) is ResnetBlock2D
        and module.time_embedding_norm == "default"
        and module.time_emb_proj is not None
        and not module.skip_time_act
        and module.upsample is module.downsample is None
        and module.output_scale_factor == 1.0
        and _is_silu(module.nonlinearity)
        and _frozen(module.norm1)
        and _frozen(module.norm2)
    )


def _is_silu(module: object) -> bool:
    return type(module) is nn.SiLU


def _frozen(norm: object) -> bool:
    return isinstance(norm, (nn.GroupNorm, nn.LayerNorm)) and norm.weight is not None and not norm.weight.requires_grad


class _OwnPrecision:
    """A norm's forward pass without autocast where input and weights agree: it sums in float32 all the same."""

    def __init__(self, forward: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
        self.plain, self.dtype = forward, dtype

    def __call__(self, x: Tensor) -> Tensor:
        if x.dtype != self.dtype:
            return self.plain(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.plain(x)


class _Resnet:
    """A residual layer's forward pass."""

    def __init__(self, block: ResnetBlock2D) -> None:
        self.block = block

    def __call__(self, x: Tensor, temb: Tensor) -> Tensor:
        """(B, in, h, w) and the time's embedding (B, D) to (B, out, h, w)."""
        block = self.block
        hidden = block.conv1(normed_silu(block.norm1, x))
        hidden = hidden + block.time_emb_proj(F.silu(temb))[:, :, None, None]
        hidden = block.conv2(block.dropout(normed_silu(block.norm2, hidden)))
        kept = x if block.conv_shortcut is None else block.conv_shortcut(x)
        return cast("Tensor", kept + hidden)


class FrozenConvolution(torch.autograd.Function):
    """A frozen convolution, of which nothing is kept but the input's shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, conv: nn.Conv2d) -> Tensor:  # noqa: ANN401 - torch's context has no type
        """(B, in, h, w) to (B, out, h', w')."""
        ctx.shape, ctx.conv = x.shape, conv
        return F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        """The gradient for x alone."""
        conv = ctx.conv
        of_x = conv2d_input(  # type: ignore[no-untyped-call]
            ctx.shape, conv.weight, grad, conv.stride, conv.padding, conv.dilation, conv.groups
        )
        return of_x, None


def free_convolutions(unet: nn.Module) -> int:
    """Let frozen convolutions without adapter keep nothing; returns how many do. Packed ones do so already."""
    chosen = [
        child
        for parent in unet.modules()
        for name, child in parent.named_children()
        if name != "base_layer" and _plain_conv(child)
    ]
    for conv in chosen:
        conv.forward = _Convolution(cast("nn.Conv2d", conv))
    return len(chosen)


def _plain_conv(child: nn.Module) -> bool:
    if type(child) is not nn.Conv2d or isinstance(child.padding, str) or child.padding_mode != "zeros":
        return False
    return not child.weight.requires_grad


class _Convolution:
    """A frozen convolution's forward pass."""

    def __init__(self, conv: nn.Conv2d) -> None:
        self.conv = conv

    def __call__(self, x: Tensor) -> Tensor:
        """(B, in, h, w) to (B, out, h', w')."""
        made: Tensor = FrozenConvolution.apply(x, self.conv)  # type: ignore[no-untyped-call]
        return made


class Entry(Protocol):
    """How a layer's input is made from what is kept in its place."""

    def ahead(self, kept: Tensor) -> Tensor:
        """The layer's input."""
        ...

    def back(self, grad: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient for what is kept, from that for the input; and the input again. `grad` may be overwritten."""
        ...


class Gate:
    """value · gelu(gate), from a projection (…, 2d) that holds both side by side."""

    def ahead(self, kept: Tensor) -> Tensor:
        """(…, 2d) to (…, d)."""
        value, gate = kept.chunk(2, dim=-1)
        return F.gelu(gate).mul_(value)

    def back(self, grad: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient for the projection (…, 2d), and value · gelu(gate) again (…, d)."""
        value, gate = kept.chunk(2, dim=-1)
        active = F.gelu(gate)
        made = torch.empty_like(kept)
        of_value, of_gate = made.chunk(2, dim=-1)
        torch.mul(grad, active, out=of_value)
        torch.ops.aten.gelu_backward.grad_input(grad.mul_(value), gate, grad_input=of_gate)
        return made, active.mul_(value)


class Normed:
    """A frozen LayerNorm."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        self.norm = norm

    def ahead(self, kept: Tensor) -> Tensor:
        """Returns the normed input, same shape and dtype; the sums are in float32 anyway."""
        with torch.autocast(kept.device.type, enabled=False):
            return self._made(kept)[0]

    def back(self, grad: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient for what goes into the norm, and what comes out."""
        norm = self.norm
        made, mean, rstd = self._made(kept)
        of_kept, _, _ = torch.ops.aten.native_layer_norm_backward(
            grad, kept, norm.normalized_shape, mean, rstd, norm.weight, norm.bias, [True, False, False]
        )
        return of_kept, made

    def _made(self, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        norm = self.norm
        return torch.native_layer_norm(kept, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


class NormedInGroups:
    """A frozen GroupNorm, of channels that come last."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        self.norm = norm

    def ahead(self, kept: Tensor) -> Tensor:
        """(B, …, C) to the same shape and dtype; the sums are in float32 anyway."""
        with torch.autocast(kept.device.type, enabled=False):
            return _channels_last(self._made(self._read(kept))[0], kept)

    def back(self, grad: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient for what goes into the norm, and what comes out."""
        x, norm = self._read(kept, back=True), self.norm
        made, mean, rstd = self._made(x)
        of_x, _, _ = torch.ops.aten.native_group_norm_backward(
            self._read(grad, back=True), x, mean, rstd, norm.weight, *_sizes(x), norm.num_groups, [True, False, False]
        )
        return _channels_last(of_x, kept), _channels_last(made, kept)

    def _read(self, x: Tensor, back: bool = False) -> Tensor:
        """(B, …, C) as (B, C, places, 1), as the norm's kernels read it."""
        return _laid_out(x.reshape(x.shape[0], -1, 1, x.shape[-1]).movedim(-1, 1), self.norm.num_groups, back)

    def _made(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _normed(
            x, cast("Tensor", self.norm.weight), cast("Tensor", self.norm.bias), self.norm.num_groups, self.norm.eps
        )


def _channels_last(x: Tensor, like: Tensor) -> Tensor:
    return x.movedim(1, -1).reshape(like.shape)


class Geglu(torch.autograd.Function):
    """value · gelu(gate) of a projection, where only the projection is kept."""

    @staticmethod
    def forward(ctx: Any, projected: Tensor) -> Tensor:  # noqa: ANN401 - torch's context has no type
        """(…, 2d) to (…, d)."""
        ctx.save_for_backward(projected)
        return Gate().ahead(projected)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ANN401
        """The gradient for the projection."""
        return Gate().back(grad.clone(), *ctx.saved_tensors)[0]  # others may hold this gradient too
