"""Frozen convolutions with their weights laid out once as oneDNN wants them, for training on a CPU.

A convolution on the CPU otherwise rearranges its weights at every call, forward and backward, which costs more time
than the arithmetic at batch 1 (ADR 6). The answers are the same to the bit.
"""

from __future__ import annotations

import platform
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

ONE = [1, 1]


class PackedConv2d(nn.Module):
    """A frozen stride-1 convolution: `weight` is packed for the forward pass, `turned` for the gradient's.

    The gradient with respect to the input of a stride-1 convolution is itself one: with the kernel turned by 180°,
    input and output channels swapped, and padding k - 1 - p.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        height, width = conv.kernel_size
        down, across = cast("tuple[int, int]", conv.padding)
        self.padding = [down, across]
        self.turned_padding = [height - 1 - down, width - 1 - across]
        weight = conv.weight.detach()
        self.weight = _packed(weight, self.padding)
        self.turned = _packed(_turned(weight), self.turned_padding)
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) to (B, out, h', w'), in the weights' dtype and channels last."""
        ready = x.to(self.weight.dtype)
        if not ready.requires_grad:
            return _convolved(ready, self.weight, self.bias, self.padding)
        made: Tensor = _Convolution.apply(ready, self)  # type: ignore[no-untyped-call]
        return made


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: PackedConv2d) -> Tensor:  # noqa: ANN401 - torch's context has no type
        """The weights are frozen, so nothing is saved for the backward pass."""
        ctx.layer = layer
        return _convolved(x, layer.weight, layer.bias, layer.padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        """The gradient for x alone."""
        layer = ctx.layer
        return _convolved(grad, layer.turned, None, layer.turned_padding), None


def pack_frozen(module: nn.Module) -> int:
    """Replace the frozen stride-1 convolutions that carry no adapter; gives back how many. Elsewhere than on x86: none.

    Each weight is given up as soon as it is packed, so memory grows by one copy of all, not two.
    """
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return 0
    places = [
        (parent, name)
        for parent in module.modules()
        for name, child in parent.named_children()
        if name != "base_layer" and _packable(child)
    ]

    def _pack(place: tuple[nn.Module, str]) -> None:
        parent, name = place
        setattr(parent, name, PackedConv2d(cast("nn.Conv2d", getattr(parent, name))))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # oneDNN rearranges a weight on one core
        return len(list(pool.map(_pack, places)))


def _packable(child: nn.Module) -> bool:
    """Only what was tried: 3 x 3 and the like, stride 1, one group, frozen, on the CPU, in a dtype oneDNN computes."""
    if type(child) is not nn.Conv2d or isinstance(child.padding, str) or child.padding_mode != "zeros":
        return False
    weight = child.weight
    computed = weight.dtype == torch.float32 or (
        weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    plain = list(child.stride) == ONE and list(child.dilation) == ONE and child.groups == 1
    return plain and computed and weight.device.type == "cpu" and not weight.requires_grad


def _turned(weight: Tensor) -> Tensor:
    """The kernel (out, in, h, w) turned by 180°, as (in, out, h, w): plane by plane, thrice as fast as whole."""
    out, into, height, width = weight.shape
    made = torch.empty(into, height, width, out, dtype=weight.dtype)
    for row in range(height):
        for column in range(width):
            made[:, row, column] = weight[:, :, height - 1 - row, width - 1 - column].t()
    return made.permute(0, 3, 1, 2)


def _packed(weight: Tensor, padding: list[int]) -> Tensor:
    # The operators that torch.compile uses for frozen weights (torch/_inductor/mkldnn_lowerings.py)
    return torch._C._nn.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), padding, ONE, ONE, 1)


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int]) -> Tensor:
    ready = x.contiguous(memory_format=torch.channels_last)
    return cast(
        "Tensor",
        torch.ops.mkldnn._convolution_pointwise(ready, weight, bias, padding, ONE, ONE, 1, "none", [], ""),
    )
