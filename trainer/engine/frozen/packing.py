"""Frozen convolutions as the machine computes them fastest: packed for oneDNN on x86 CPUs, else channels last.

A convolution on the CPU otherwise rearranges its weights at every call, forward and backward, which costs more time
than the arithmetic at batch 1 (ADR 6). The answers are the same but for rounding.
"""

import platform
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trainer.engine.frozen.quantized import QuantizedWeight
from trainer.engine.frozen.streaming import StreamedWeight

ONE, NONE = [1, 1], [0, 0]


class PackedConv2d(nn.Module):
    """A frozen stride-1 convolution whose weight is packed at first use, for the sizes seen then.

    oneDNN's layout depends on them: one chosen without is rearranged at every call all the same where another suits
    better. The first training step has the say, and the plain weight is given up with it; a preview before that packs
    for itself.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.padding = list(cast("tuple[int, int]", conv.padding))
        self.dtype = conv.weight.dtype
        self.bias = conv.bias
        self._plain: Tensor | None = conv.weight.detach()
        self._ahead: Tensor | None = None
        self._back: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) to (B, out, h', w'), in the weights' dtype and channels last."""
        ready = x.to(self.dtype)
        if self._plain is not None:
            self._pack(self._plain, list(x.shape))
        if not ready.requires_grad:
            return self.convolved(ready)
        made: Tensor = _Convolution.apply(ready, self)  # type: ignore[no-untyped-call]
        return made

    def _pack(self, plain: Tensor, seen: list[int]) -> None:
        """Pack for inputs of this shape, by the operators that torch.compile uses for frozen weights."""
        training = torch.is_grad_enabled()
        if self._ahead is None or training:
            self._ahead = torch.ops.mkldnn._reorder_convolution_weight(plain, self.padding, ONE, ONE, 1, seen)
        if training:
            made = [
                size + 2 * padding - kernel + 1
                for size, padding, kernel in zip(seen[2:], self.padding, plain.shape[2:], strict=True)
            ]
            self._back = torch.ops.mkldnn._reorder_convolution_transpose_weight(
                plain, self.padding, NONE, ONE, ONE, 1, [seen[0], plain.shape[0], *made]
            )
            self._plain = None

    def convolved(self, x: Tensor) -> Tensor:
        """The convolution itself."""
        ready = x.contiguous(memory_format=torch.channels_last)
        return cast(
            "Tensor",
            torch.ops.mkldnn._convolution_pointwise(
                ready, self._ahead, self.bias, self.padding, ONE, ONE, 1, "none", [], ""
            ),
        )

    def gradient(self, grad: Tensor) -> Tensor:
        """The gradient for x, which is the transposed convolution of that for the output."""
        ready = grad.contiguous(memory_format=torch.channels_last)
        return cast(
            "Tensor",
            torch.ops.mkldnn._convolution_transpose_pointwise(
                ready, self._back, None, self.padding, NONE, ONE, ONE, 1, "none", [], ""
            ),
        )


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: PackedConv2d) -> Tensor:  # noqa: ANN401 - torch's context has no type
        """The weights are frozen, so nothing is saved for the backward pass."""
        ctx.layer = layer
        return layer.convolved(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        """The gradient for x alone."""
        return ctx.layer.gradient(grad), None


def lay_out(module: nn.Module) -> int:
    """Pack the frozen stride-1 convolutions that carry no adapter, and lay out the others channels last.

    Returns:
        How many were packed; none but on an x86 CPU.
    """
    packed = 0
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if name != "base_layer" and _packable(child):
                setattr(parent, name, PackedConv2d(cast("nn.Conv2d", child)))
                packed += 1
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return packed


def _packable(child: nn.Module) -> bool:
    """Only what was tried: 3 x 3 and the like, stride 1, one group, frozen, dense, on the CPU, in oneDNN's dtypes."""
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if type(child) is not nn.Conv2d or isinstance(child.padding, str) or child.padding_mode != "zeros":
        return False
    weight = child.weight
    if isinstance(weight, (QuantizedWeight, StreamedWeight)):
        return False
    computed = weight.dtype == torch.float32 or (
        weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    plain = list(child.stride) == ONE and list(child.dilation) == ONE and child.groups == 1
    return plain and computed and weight.device.type == "cpu" and not weight.requires_grad
