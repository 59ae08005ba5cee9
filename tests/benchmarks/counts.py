"""What one training step costs on any machine, in bytes and operations: `python tests/benchmarks/counts.py`.

Full-size SD 1.5, 192 LoRA modules of rank 16, bfloat16, batch 1: ours at each checkpointing level against a plain loop
(diffusers, peft, autocast over a bfloat16 base). Nothing is computed: fake tensors have shapes and lifetimes only, so
the counts are exact and the same everywhere. Convolutions are not packed here, as on a graphics card.
"""

from __future__ import annotations

import argparse
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import originals

from trainer.contract.settings.learning import AdapterSettings
from trainer.engine.adapters.lora import attach
from trainer.engine.prepare import keep_less
from trainer.models import lora_names

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
RANK = 16
LEVELS = ("none", "feed_forward", "blocks", "full")
NOTHING_COMPUTED = FakeTensorMode()


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward(_grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """Five products, of which one is made again, to the forward pass's two."""
    return sdpa_flop_count(query.shape, key.shape, value.shape) * 5 // 2


FLOP = flop_registry | {  # torch knows attention on graphics cards only
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


@dataclass(frozen=True)
class Counts:
    """One forward and backward pass; memory in MiB."""

    saved: float  # for the backward pass
    peak: float  # of all tensors that the step makes
    operations: int  # ATen's, those that only look at a tensor differently left out
    tflop: float


class Bare:
    """The part of a model family that attaching an adapter needs; modules without weights."""

    def __init__(self, family: str, dtype: torch.dtype = torch.bfloat16) -> None:
        made = originals.bare_parts(family, tiny=False)
        self.parts = {name: part.eval().requires_grad_(requires_grad=False).to(dtype) for name, part in made.items()}

    def component(self, name: str) -> nn.Module:
        return self.parts[name]

    def lora_slots(self, targets: str, components: Any) -> Any:
        slots = lora_names.unet_slots(self.parts["unet"].config, targets)
        for component in components[1:]:
            config = self.parts[component].config.to_dict()
            slots |= lora_names.text_slots(config, targets, component, lora_names.TWO_ENCODERS[component])
        return slots

    def kohya_name(self, component: Any, path: str) -> str:
        return lora_names.kohya_name(component, path, lora_names.TWO_ENCODERS)


def plain() -> nn.Module:
    """SD 1.5's UNet as a good first loop has it: peft's layers, trained in float32."""
    from diffusers.training_utils import cast_training_params
    from peft import LoraConfig

    unet = Bare("sd15").component("unet")
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS))
    cast_training_params(unet)
    return faked(unet)


def ours(level: Any, family: str = "sd15", dtype: torch.dtype = torch.bfloat16, dropout: float = 0.0) -> nn.Module:
    """The UNet as `trainer.engine.prepare` makes it."""
    bare = Bare(family, dtype)
    adapter = attach(bare, AdapterSettings(rank=RANK, alpha=RANK, dropout=dropout), seed=0)
    unet = faked(bare.component("unet"))
    keep_less(bare, adapter, dropout, level)
    return unet


def faked(unet: nn.Module) -> nn.Module:
    """The same with weights that claim to lie on the CPU, channels last; gives back the module."""
    for module in unet.modules():
        for name, weight in module.named_parameters(recurse=False):
            layout = torch.channels_last if weight.ndim == 4 else torch.contiguous_format
            with NOTHING_COMPUTED:
                like = torch.empty(weight.shape, dtype=weight.dtype, memory_format=layout)
            module.register_parameter(name, nn.Parameter(like, weight.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            with NOTHING_COMPUTED:
                module.register_buffer(name, torch.empty(buffer.shape, dtype=buffer.dtype))
    return unet


class Ledger(TorchDispatchMode):
    """Counts operations, and the bytes of what they make for as long as it lives."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.operations = self.flop = self.live = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = op(*args, **(kwargs or {}))
        if op.namespace == "aten":
            self.operations += not op.is_view
            if op.overloadpacket in FLOP:
                self.flop += FLOP[op.overloadpacket](*args, **(kwargs or {}), out_val=made)
            for tensor in tree_leaves(made):
                if isinstance(tensor, Tensor):
                    self._enter(tensor.untyped_storage())
        return made

    def _enter(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._leave, key, size)

    def _leave(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


@contextmanager
def savings(known: list[Tensor]) -> Iterator[dict[int, int]]:
    """Bytes kept for the backward pass, by storage; weights do not count."""
    ignored = {tensor.untyped_storage()._cdata for tensor in known}
    kept: dict[int, int] = {}

    def _keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in ignored:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(_keep, lambda tensor: tensor):
        yield kept


def step(unet: nn.Module, pixels: int, batch: int = 1) -> Counts:
    """One training step's counts at pixels x pixels."""
    side, dtype = pixels // 8, next(unet.parameters()).dtype
    with NOTHING_COMPUTED:
        noisy = torch.empty(batch, 4, side, side).to(memory_format=torch.channels_last)
        target, t = torch.empty_like(noisy), torch.empty(batch, dtype=torch.int64)
        states = torch.empty(batch, 77, unet.config.cross_attention_dim, dtype=dtype)
        sdxl = {"text_embeds": torch.empty(batch, 1280, dtype=dtype), "time_ids": torch.empty(batch, 6)}
        given = {"added_cond_kwargs": sdxl} if unet.config.addition_embed_type else {}

        def _loss() -> Tensor:
            return F.mse_loss(unet(noisy, t, states, return_dict=False, **given)[0].float(), target)

        known = [*unet.parameters(), *unet.buffers(), noisy, target, t, states, *sdxl.values()]
        return counted(_loss, known, dtype)


def counted(forward: Callable[[], Tensor], known: list[Tensor], dtype: torch.dtype) -> Counts:
    """The counts of a forward pass and, from its answer if that has one, of the backward pass."""
    ledger = Ledger(known)
    with NOTHING_COMPUTED, ledger:
        with savings(known) as kept, torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            answer = forward()
        saved = sum(kept.values())
        if answer.requires_grad:
            answer.backward()
    return Counts(saved / 2**20, ledger.peak / 2**20, ledger.operations, ledger.flop / 1e12)


def main() -> None:
    """Print a table for each size."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    sides: dict[str, Callable[[], nn.Module]] = {"plain": plain}
    sides |= {level: lambda level=level: ours(level) for level in LEVELS}
    for pixels in (256, 512):
        base = step(plain(), pixels)
        for name, make in sides.items():
            made = base if name == "plain" else step(make(), pixels)
            sys.stdout.write(
                f"{pixels} px {name:>12}: saved {made.saved:7.1f} MiB, peak {made.peak:7.1f} MiB "
                f"({made.peak / base.peak:.3f}), {made.operations} operations, {made.tflop:.3f} TFLOP\n"
            )


if __name__ == "__main__":
    main()
