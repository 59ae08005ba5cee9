"""What a training will take, counted: `python tests/benchmarks/memory.py` writes `trainer/planning/memory.json`.

Published architectures at full size on tensors that have shapes and lifetimes only (`counts.py`), so it needs no card
and gives the same everywhere; about half an hour. The counts themselves go to `tests/fixtures/counted-memory.json`;
`--table` compares them with what the planner predicts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import numpy as np
import torch
from benchmarks.counts import LEVELS, NOTHING_COMPUTED, RANK, Bare, counted, faked, ours, step
from torch import Tensor, nn

from trainer.contract.settings.config import validated
from trainer.contract.settings.learning import AdapterSettings
from trainer.engine.adapters.lora import attach
from trainer.engine.families.parts import QUANTIZED_BLOCKS, in_tiles
from trainer.engine.frozen.quantized import BLOCK
from trainer.engine.frozen.streaming import blocks_of, streamed
from trainer.engine.prepare import keep_less
from trainer.planning import memory

FAMILIES = ("sd15", "sd2", "sdxl")
SIZES, BATCHES = (512, 768, 1024), (1, 2, 4)
NUMBERS: dict[str, torch.dtype] = {"half": torch.bfloat16, "float": torch.float32}
POINTS = {"half": [(size, batch) for size in SIZES for batch in BATCHES], "float": [(512, 1), (1024, 1), (512, 2)]}
MIB = 2**20
COUNTS = Path(__file__).parents[1] / "fixtures" / "counted-memory.json"


def counted_peaks(family: str, number: str) -> dict[str, list[float]]:
    """For each level the MiB of a step at each of `POINTS`."""
    made = {}
    for level in LEVELS:
        unet = ours(level, family, NUMBERS[number])
        made[level] = [round(step(unet, size, batch).peak, 1) for size, batch in POINTS[number]]
        _tell(f"{family} {number} {level}: {made[level]} MiB")
    return made


def line(number: str, peaks: list[float]) -> list[int]:
    """MiB of a step: always, per image, and per image and 2^20 px."""
    return _fitted([[1, batch, batch * size**2 / MIB] for size, batch in POINTS[number]], peaks)


def _fitted(rows: list[list[float]], measured: list[float]) -> list[int]:
    """The line with the least error in relation to what was measured."""
    weights = 1 / np.array(measured)
    found, *_ = np.linalg.lstsq(np.array(rows) * weights[:, None], np.ones(len(measured)), rcond=None)
    return [round(float(number)) for number in found]


def text(family: str, number: str) -> list[int]:
    """MiB that each text encoder's own step keeps per image, LoRA on it."""
    bare = Bare(family, NUMBERS[number])
    components = [name for name in bare.parts if name.startswith("text")]
    chosen = {name: True for name in components}
    adapter = attach(bare, AdapterSettings(rank=RANK, alpha=RANK, **chosen), seed=0)
    for name in components:
        faked(bare.component(name))
    faked(bare.component("unet"))
    keep_less(bare, adapter, 0.0, "none")
    return [_text_peak(bare.component(name), NUMBERS[number]) for name in components]


def _text_peak(encoder: nn.Module, dtype: torch.dtype) -> int:
    with NOTHING_COMPUTED:
        ids = torch.empty(1, 77, dtype=torch.int64)

    def _loss() -> Tensor:
        return encoder(ids).last_hidden_state.float().sum()

    return round(counted(_loss, [*encoder.parameters(), *encoder.buffers(), ids], dtype).peak)


def vae(family: str, sizes: tuple[int, ...] = SIZES) -> dict[str, list[float]]:
    """MiB in half precision of encoding an image of these sizes, of decoding one whole, or in tiles."""
    coder = faked(Bare(family).component("vae"))
    known = [*coder.parameters(), *coder.buffers()]

    def _encoded(size: int) -> Tensor:
        return coder.encode(torch.empty(1, 3, size, size, dtype=torch.bfloat16)).latent_dist.mean

    def _decoded(size: int) -> Tensor:
        return coder.decode(torch.empty(1, 4, size // 8, size // 8, dtype=torch.bfloat16), return_dict=False)[0]

    def _peaks(act: Callable[[int], Tensor]) -> list[float]:
        return [counted(lambda size=size: act(size), known, torch.bfloat16).peak for size in sizes]

    with torch.no_grad():
        made = {"encoding": _peaks(_encoded), "decoding": _peaks(_decoded)}
        with in_tiles(coder):
            return made | {"tiled": _peaks(_decoded)}


def denoising(family: str, sizes: tuple[int, ...] = SIZES) -> dict[str, list[float]]:
    """MiB of what draws a preview's latents, as it is while LoRA layers are on it: two images, for guidance."""
    unet = ours("none", family)
    with torch.no_grad():
        return {"denoising": [step(unet, size, 2).peak for size in sizes]}


def _lines(family: str, peaks: dict[str, list[float]]) -> dict[str, list[int]]:
    """Of each what it always takes, and per 2^20 px."""
    _tell(f"{family}: {peaks}")
    return {name: _fitted([[1, size**2 / MIB] for size in SIZES], found) for name, found in peaks.items()}


def facts(family: str, peaks: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """All numbers of one architecture, whose counts are those."""
    bare = Bare(family)
    parts = {name: sum(weight.numel() for weight in part.parameters()) for name, part in bare.parts.items()}
    texts = [parts[name] for name in parts if name.startswith("text")]
    return {
        "unet": parts["unet"],
        "packed": sum(_packed(bare.component("unet"))),
        "held": sum(held := list(_held(bare.component("unet")))),
        "largest": max(held),
        "block": max(_streamed(bare.component("unet"))),
        "text": texts,
        "vae": parts["vae"],
        "lora_per_rank": {targets: _per_rank(bare, targets) for targets in ("attention", "attention_mlp")},
        "activations": {
            number: {level: line(number, found) for level, found in levels.items()} for number, levels in peaks.items()
        },
        "text_activations": {number: text(family, number) for number in NUMBERS},
        **_lines(family, vae(family) | denoising(family)),
    }


def _packed(unet: nn.Module) -> Iterator[int]:
    """Weights of the convolutions that a CPU packs (`frozen/packing.py`), a second time for the backward pass."""
    for name, module in unet.named_modules():
        if type(module) is nn.Conv2d and module.stride == (1, 1) and not name.endswith(("proj_in", "proj_out")):
            yield module.weight.numel()


def _held(unet: nn.Module) -> Iterator[int]:
    """Sizes of the weights that can be held in fewer bits (`trainer/engine/frozen/quantized.py`)."""
    for name, weight in unet.named_parameters():
        if name.startswith(QUANTIZED_BLOCKS) and weight.ndim > 1 and weight.numel() % BLOCK == 0:
            yield weight.numel()


def _streamed(unet: nn.Module) -> Iterator[int]:
    """Sizes of the blocks that can be streamed (`trainer/engine/frozen/streaming.py`)."""
    for block in blocks_of(unet):
        yield sum(getattr(owner, name).numel() for owner, name in streamed(block))


def _per_rank(bare: Bare, targets: str) -> list[int]:
    """Numbers that a LoRA of rank 1 trains, in the UNet and in each text encoder."""
    components = [name for name in ("unet", "text_encoder", "text_encoder_2") if name in bare.parts]
    slots = bare.lora_slots(targets, components).values()
    widths: dict[str, int] = dict.fromkeys(components, 0)
    for slot in slots:
        widths[slot.component] += slot.shape[0] + slot.shape[1]
    return list(widths.values())


def table() -> str:
    """Predicted and counted activations of all configurations, as Markdown."""
    counts = json.loads(COUNTS.read_text(encoding="utf-8"))
    lines = ["| | predicted | counted | |", "|---|---|---|---|"]
    for family, level, place in configurations():
        size, batch = POINTS["half"][place]
        expected, seen = predicted(family, level, place), counts[family]["half"][level][place]
        where = f"{family}, {size} px, batch {batch}, {level}"
        lines.append(f"| {where} | {expected:.0f} MiB | {seen:.0f} MiB | {expected / seen - 1:+.1%} |")
    return "\n".join(lines)


def configurations() -> Iterator[tuple[str, Any, int]]:
    """Family, level and place in the half-precision `POINTS` of all that was counted."""
    return itertools.product(FAMILIES, LEVELS, range(len(POINTS["half"])))


def predicted(family: str, level: Any, place: int) -> float:
    """The planner's MiB of a step."""
    size, batch = POINTS["half"][place]
    settings = {"dataset": {"resolution": size}, "adapter": {"text_encoder": False, "rank": RANK}}
    return memory.activations(family, validated(settings), memory.Savings(level, batch, 1), half=True)


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Count and write the numbers, or compare those that are written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="compare the planner with the counts")
    if parser.parse_args().table:
        _tell(table())
        return
    peaks = {family: {number: counted_peaks(family, number) for number in NUMBERS} for family in FAMILIES}
    COUNTS.write_text(json.dumps(peaks, indent=1) + "\n", encoding="utf-8")
    made = {family: facts(family, peaks[family]) for family in FAMILIES}
    Path(memory.__file__).with_suffix(".json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
