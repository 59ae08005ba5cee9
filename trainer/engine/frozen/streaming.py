"""A UNet's frozen blocks in system memory, each copied to the device just before it computes.

Two buffers take turns: while one block computes, the weights of the next one are copied into the other. Layers,
adapters and the shapes around them stay what they are, for such a weight is a tensor like any other, as those of
`quantized.py`; and what autograd keeps of it for the backward pass is where it lies (ADR 13). Outputs are
bit-exact with those of blocks that stay on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import torch
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from trainer.contract.wording import setting
from trainer.engine.errors import NothingToSave
from trainer.engine.frozen.quantized import QuantizedWeight, passed_on, placed

ALIGNED = 512  # bytes, as on the device otherwise: kernels are chosen by it
PIECE = 2**29  # bytes of system memory that blocks share: pinned memory is given in powers of two


class Block:
    """Weights that compute together, side by side in system memory."""

    def __init__(self, room: Tensor, buffers: Buffers) -> None:
        self.room, self.buffers = room, buffers  # (bytes,) uint8
        self._used = 0

    def take(self, weight: Tensor) -> StreamedWeight:
        """The weight, whose numbers are copied into this block."""
        return StreamedWeight(placed(weight, self._copied), self)

    def _copied(self, numbers: Tensor) -> Tensor:
        """Convolutions channels last, as `trainer/engine/frozen/packing.py` has them."""
        laid = torch.channels_last if numbers.ndim == 4 else torch.contiguous_format
        like = torch.empty_like(numbers, device="meta", memory_format=laid)
        own = self.room[self._used : self._used + numbers.nbytes].view(numbers.dtype)
        self._used += _aligned(numbers.nbytes)
        return own.as_strided(like.shape, like.stride()).copy_(numbers)

    def lend(self, stored: Tensor) -> Tensor:
        """A weight that lies in this block, on the device for as long as no other block is asked for."""
        first, there = self.room.storage_offset(), self.buffers.hold(self)

        def _same_place(numbers: Tensor) -> Tensor:
            offset = numbers.storage_offset() - first // numbers.itemsize
            return there.view(numbers.dtype).as_strided(numbers.shape, numbers.stride(), offset)

        return placed(stored, _same_place)


class Buffers:
    """Two places on the device that blocks take turns in."""

    def __init__(self, size: int, device: torch.device) -> None:
        side = side_stream(device)
        self.slots = Place(size, device, side), Place(size, device, side)  # the one in use first
        self._before: Block | None = None  # was in use before this one
        self._following: dict[tuple[Block | None, Block | None], Block] = {}

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.slots[0].room.device

    def hold(self, block: Block) -> Tensor:
        """The block's bytes on the device; those that followed it the last time are on their way from here on."""
        if self.slots[0].block is not block:
            self._turn_to(block)
        return self.slots[0].room

    def _turn_to(self, block: Block) -> None:
        left, taken = self.slots
        self._following[self._before, left.block] = block
        left.leave()
        if taken.block is not block:
            taken.fill(block)
        taken.enter()
        self.slots, self._before = (taken, left), left.block
        following = self._following.get((left.block, block))  # two blocks in a row distinguish forward from backward
        if following is not None and following is not left.block:
            left.fill(following)


def side_stream(device: torch.device) -> torch.cuda.Stream | None:
    """Where copies go their own way beside the computing; None but on a graphics card with memory of its own."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


class Place:
    """A place for one block at a time; on a graphics card copying into it and computing from it wait for each other."""

    def __init__(self, size: int, device: torch.device, side: torch.cuda.Stream | None) -> None:
        self.room = torch.empty(size, dtype=torch.uint8, device=device)
        self.block: Block | None = None
        self.side = side
        if side is not None:
            self.room.record_stream(side)  # when all is given up, the memory is not used again before the last copy
            self._filled, self._read = (torch.cuda.Event() for _ in range(2))  # type: ignore[no-untyped-call]
            self.leave()  # whoever had this memory before has read it, too

    def fill(self, block: Block) -> None:
        """Copy the block here, once all that computes from what is here now has done so."""
        self.block = None  # should the copy fail
        here = self.room[: len(block.room)]
        if self.side is None:
            here.copy_(block.room)
        else:
            self.side.wait_event(self._read)
            with torch.cuda.stream(self.side):
                here.copy_(block.room, non_blocking=True)
                self._filled.record(self.side)
        self.block = block

    def enter(self) -> None:
        """What is computed from now on waits for the copy."""
        if self.side is not None:
            torch.cuda.current_stream(self.room.device).wait_event(self._filled)

    def leave(self) -> None:
        """All that computes from this place is under way."""
        if self.side is not None:
            self._read.record(torch.cuda.current_stream(self.room.device))


class StreamedWeight(Tensor):
    """A weight whose numbers, dense or in few bits, lie in a block; operations read it as a dense one on the device."""

    stored: Tensor
    block: Block

    @staticmethod
    def __new__(cls: type[StreamedWeight], stored: Tensor, block: Block) -> StreamedWeight:  # noqa: D102 - as QuantizedWeight
        made = Tensor._make_wrapper_subclass(
            cls, stored.shape, strides=stored.stride(), dtype=stored.dtype, device=block.buffers.device
        )
        made.stored, made.block = stored, block
        return made

    def dense(self) -> Tensor:
        """The weight itself, for as long as no other block is asked for."""
        lent = self.block.lend(self.stored)
        return lent.dense() if isinstance(lent, QuantizedWeight) else lent

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares it as a plain function
        cls,
        func: Any,  # noqa: ANN401 - torch's operators have no type
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """The operator's answer on dense weights, but for those that only look at the weight otherwise."""
        named = kwargs or {}
        seen = _seen_otherwise(func, args, named)
        if seen is not None:
            return seen
        several = sum(isinstance(leaf, StreamedWeight) for leaf in tree_leaves((args, named))) > 1

        def _read(weight: StreamedWeight) -> Tensor:
            return weight.dense().clone() if several else weight.dense()  # the next one may take its place

        return func(*tree_map_only(StreamedWeight, _read, args), **tree_map_only(StreamedWeight, _read, named))


def _seen_otherwise(func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:  # noqa: ANN401
    """Returns a view of the stored numbers, which must not share a buffer; None where numbers are computed."""
    weight = args[0]
    if not isinstance(weight, StreamedWeight):
        return None
    if func is torch.ops.aten._to_copy.default:
        same = named.get("dtype") in (None, weight.dtype) and named.get("device") in (None, weight.device)
        return StreamedWeight(weight.stored, weight.block) if same else None
    if not func.is_view:
        return None
    see: Callable[..., Any] = passed_on if isinstance(weight.stored, QuantizedWeight) else _called
    seen = see(func, (weight.stored, *args[1:]), named)
    return None if seen is None else tree_map_only(Tensor, lambda one: StreamedWeight(one, weight.block), seen)


def _called(func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:  # noqa: ANN401
    return func(*args, **named)


def blocks_of(unet: nn.Module) -> Iterator[list[nn.Module]]:
    """The UNet's parts whose weights are needed together: residual layers, transformer blocks, and what is between."""
    for module in cast("Iterator[Any]", unet.modules()):
        if isinstance(module, Transformer2DModel):
            parts: list[list[nn.Module]] = [[block] for block in module.transformer_blocks]
            parts[0].insert(0, module.proj_in)
            parts[-1].append(module.proj_out)
            yield from parts
        elif isinstance(module, (ResnetBlock2D, Downsample2D, Upsample2D)):
            yield [module]


def streamed(parts: Iterable[nn.Module]) -> list[tuple[nn.Module, str]]:
    """The weights of a block that are streamed, by owner and name: matrices and convolutions; vectors are small."""
    return [
        (owner, name)
        for part in parts
        for owner in part.modules()
        for name, weight in owner.named_parameters(recurse=False)
        if weight.ndim > 1
    ]


def stream(blocks: Iterable[Sequence[nn.Module]], device: torch.device) -> None:
    """Offload these blocks' weights to system RAM; each is copied to the device when it is computed with.

    Raises:
        NothingToSave: They have no weights to offload.
    """
    places = [found for block in blocks if (found := streamed(block))]
    if not places:
        off = setting("model.offload", "off")
        raise NothingToSave(saving="Offloading to system RAM", parts="blocks that it can offload", instead=off)
    sizes = [sum(_size(getattr(owner, name)) for owner, name in block) for block in places]
    buffers = Buffers(max(sizes), device)
    for block, room in zip(places, _rooms(sizes, pinned=device.type == "cuda"), strict=True):
        home = Block(room, buffers)
        for owner, name in block:
            setattr(owner, name, nn.Parameter(home.take(getattr(owner, name).data), requires_grad=False))


def _size(weight: Tensor) -> int:
    numbers = [weight.codes, weight.scales] if isinstance(weight, QuantizedWeight) else [weight]
    return sum(_aligned(one.nbytes) for one in numbers)


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED


def _rooms(sizes: Sequence[int], pinned: bool) -> Iterator[Tensor]:
    """System memory for each of them, in pieces that several share."""
    left = torch.empty(0, dtype=torch.uint8)
    for place, size in enumerate(sizes):
        if len(left) < size:
            left = torch.empty(max(size, min(PIECE, sum(sizes[place:]))), dtype=torch.uint8, pin_memory=pinned)
        yield left[:size]
        left = left[size:]
