"""Frozen weights quantized to 8 or 4 bits; any operation reads them as dense weights, made for that operation alone.

Layers, adapters and the shapes around them stay what they are, for such a weight is a tensor like any other; and what
autograd keeps of it for the backward pass are its bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from trainer.contract.settings.model import Quantize

BLOCK = 64  # weights that share a scale, as QLoRA has it
# NormalFloat: where 16 values lie best for normally distributed weights (Dettmers et al. 2023, arXiv:2305.14314, E)
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)


class QuantizedWeight(Tensor):
    """A weight (out, in, …) as codes (blocks, …), int8 or two to a byte, and scales (blocks, 1) in its own dtype."""

    codes: Tensor
    scales: Tensor
    turned: bool

    @staticmethod
    def __new__(  # noqa: D102 - a tensor is made here, not in __init__
        cls: type[QuantizedWeight], codes: Tensor, scales: Tensor, shape: Sequence[int], turned: bool = False
    ) -> QuantizedWeight:
        outside, inside, *kernel = shape[::-1] if turned else shape
        like = torch.empty((outside, *kernel, inside), device="meta").movedim(-1, 1)  # strides as `dense` has them
        made = Tensor._make_wrapper_subclass(
            cls,
            torch.Size(shape),
            strides=(like.t() if turned else like).stride(),
            dtype=scales.dtype,
            device=scales.device,
        )
        made.codes, made.scales, made.turned = codes, scales, turned
        return made

    def dense(self) -> Tensor:
        """The weight itself; that of a convolution channels last, as its kernels read it."""
        if self.turned:
            return self.turn().dense().t()
        outside, inside, *kernel = self.shape
        return _unpacked(self.codes, self.scales).view(outside, *kernel, inside).movedim(-1, 1)

    def turn(self) -> QuantizedWeight:
        """The transposed matrix."""
        return QuantizedWeight(self.codes, self.scales, self.shape[::-1], not self.turned)

    def __tensor_flatten__(self) -> tuple[list[str], tuple[torch.Size, bool]]:
        """What modules need to move it to another device."""
        return ["codes", "scales"], (self.shape, self.turned)

    @staticmethod
    def __tensor_unflatten__(
        inner: Mapping[str, Tensor], rest: tuple[torch.Size, bool], _size: object, _stride: object
    ) -> QuantizedWeight:
        """The reverse."""
        return QuantizedWeight(inner["codes"], inner["scales"], *rest)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares it as a plain function
        cls,
        func: Any,  # noqa: ANN401 - torch's operators have no type
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """The operator's answer on dense weights, but for those that only pass the weight on."""
        named = kwargs or {}
        passed = passed_on(func, args, named)
        if passed is not None:
            return passed
        return func(
            *tree_map_only(QuantizedWeight, QuantizedWeight.dense, args),
            **tree_map_only(QuantizedWeight, QuantizedWeight.dense, named),
        )


def passed_on(func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> QuantizedWeight | None:  # noqa: ANN401
    """Returns these codes under another shape or on another device; None where numbers are computed."""
    aten, weight = torch.ops.aten, args[0]
    if not isinstance(weight, QuantizedWeight):
        return None
    if func is aten.detach.default:
        return QuantizedWeight(weight.codes, weight.scales, weight.shape, weight.turned)
    if func is aten.t.default:
        return weight.turn()
    if func is aten.view.default and not weight.turned and list(args[1]) == [*weight.shape[:2]]:
        return QuantizedWeight(weight.codes, weight.scales, args[1])  # a 1 x 1 convolution's as a matrix
    if func is aten._to_copy.default and named.get("dtype") in (None, weight.dtype):
        there = named.get("device", weight.device)
        return cast("QuantizedWeight", placed(weight, lambda numbers: numbers.to(there)))
    return None


def placed(weight: Tensor, place: Callable[[Tensor], Tensor]) -> Tensor:
    """Returns the weight, quantized or dense, with its numbers where `place` puts them."""
    if isinstance(weight, QuantizedWeight):
        return QuantizedWeight(place(weight.codes), place(weight.scales), weight.shape, weight.turned)
    return place(weight)


def quantize_weight(weight: Tensor, quantize: Quantize) -> Tensor:
    """Returns the weight in fewer bits; unchanged with "none", as a vector, or if it does not divide into blocks."""
    if quantize == "none" or weight.ndim < 2 or weight.numel() % BLOCK:
        return weight
    blocks = weight.movedim(1, -1).reshape(-1, BLOCK).float()
    most = 127 if quantize == "8bit" else 1
    scales = (blocks.abs().amax(dim=1, keepdim=True) / most).to(weight.dtype)
    # Within the range again, as the scale was rounded; and not in place, for these may be the weight's own numbers
    ready = (blocks / scales.clamp_(min=torch.finfo(weight.dtype).tiny)).clamp_(-most, most)
    if quantize == "8bit":
        return QuantizedWeight(ready.round_().to(torch.int8), scales, weight.shape)
    nearest = torch.index_select(_codes(weight.device), 0, _places(ready).flatten()).view_as(ready)
    return QuantizedWeight(nearest[:, 0::2] << 4 | nearest[:, 1::2], scales, weight.shape)


def _places(values: Tensor) -> Tensor:
    """Of numbers from -1 to 1, which are overwritten, on a scale of 4096."""
    return values.add_(1).mul_(2047.5).round_().int()


@lru_cache
def _codes(device: torch.device) -> Tensor:
    """(4096,): the nearest of NormalFloat's values for each place; to search for each weight takes far longer."""
    values = torch.tensor(NF4, device=device)
    places = torch.linspace(-1, 1, 4096, device=device)
    return torch.bucketize(places, (values[1:] + values[:-1]) / 2).to(torch.uint8)


def _unpacked(codes: Tensor, scales: Tensor) -> Tensor:
    """(blocks, 64) in the scales' dtype."""
    if codes.dtype == torch.int8:
        return codes * scales
    both = torch.index_select(_pairs(scales.dtype, scales.device), 0, codes.flatten().int())
    return both.view(scales.dtype).view(-1, BLOCK).mul_(scales)


@lru_cache
def _pairs(dtype: torch.dtype, device: torch.device) -> Tensor:
    """(256,): the two values that each byte stands for, as one integer, which is looked up far faster than a pair."""
    values = torch.tensor(NF4, dtype=dtype, device=device)
    return torch.cartesian_prod(values, values).view(torch.int64 if dtype == torch.float32 else torch.int32).flatten()
