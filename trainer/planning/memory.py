"""How much memory a training will take, by component, and the savings that make it fit.

The numbers of the published architectures stand in `memory.json`; `tests/benchmarks/memory.py` counts them on models
without weights.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any, Literal, get_args

from trainer.contract.settings.config import TrainConfig
from trainer.contract.settings.model import Checkpointing, Quantize
from trainer.contract.wording import for_console, setting
from trainer.dataset.clip_tokens import CHUNK_TOKENS

MIB, GIB = 2**20, 2**30
TRAINED_BYTES = 12  # per trained number: itself and AdamW's two moments, all float32
GRADIENT_BYTES = 4  # one step's gradients count as activations; between the passes of one they are there besides
KEPT_FREE = 0.06  # of what is free: allocators round up and fragment
LEVELS: tuple[Checkpointing, ...] = get_args(Checkpointing)
CHECKPOINTED: dict[Checkpointing, str] = {
    "none": "no gradient checkpointing",
    "feed_forward": "gradient checkpointing (feed-forward layers)",
    "blocks": "gradient checkpointing (transformer blocks)",
    "full": "gradient checkpointing (nearly everything)",
}
QUANTIZED: dict[Quantize, str] = {
    "none": "",
    "8bit": ", base model quantized to 8-bit",
    "4bit": ", base model quantized to 4-bit",
}
OFFLOADED = ", blocks offloaded to system RAM"
BUFFERS = 2  # blocks that are on the card at once when they are streamed
QUANTIZED_BYTES = {"8bit": 1, "4bit": 0.5}  # of a weight; each 64 share a scale in the working number format besides
SIZE_STEP = 64  # px between the smaller resolutions that are tried, down to half of the wished one
PRICE = "The result is the same; it takes longer."
COARSER = "It takes longer, and trains against a slightly less precise base model."
Name = Literal["base", "adapter", "activations", "encoding", "preview"]


@dataclass(frozen=True)
class Savings:
    """What is given up for memory: recomputation, batches cut into smaller ones of equal sum, bits, place."""

    level: Checkpointing
    batch_size: int
    accumulation: int
    quantize: Quantize = "none"
    stream: bool = False  # the base's blocks from system memory


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by component at the fullest moment of each process of a training with these savings, and what there is.

    `besides` are those that streamed blocks take of system memory; `smaller` is the resolution in px that would fit
    where this one does not, and whether it is taken is the user's choice.
    """

    savings: Savings
    parts: dict[Name, int]
    budget: int | None
    besides: int = 0
    tiled: bool = False  # previews are decoded in tiles
    processes: int = 1
    smaller: int | None = None

    @property
    def peak(self) -> int:
        """Their sum."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether that is there; so if nobody knows."""
        return self.budget is None or self.peak <= self.budget * (1 - KEPT_FREE)


@cache
def _facts() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    return made


def knows(family: str, unet_numbers: int) -> bool:
    """Whether a model with so many numbers in its UNet is the published one, whose memory `predict` knows."""
    return bool(_facts()[family]["unet"] == unet_numbers)


def trained_numbers(family: str, config: TrainConfig) -> int:
    """How many numbers an adapter with these settings trains, on a published architecture."""
    adapter = config.adapter
    learns = [True, adapter.text_encoder, adapter.text_encoder_2]
    per_rank = _facts()[family]["lora_per_rank"][adapter.targets]
    return int(sum(count for count, wanted in zip(per_rank, learns, strict=False) if wanted) * adapter.rank)


def predict(
    family: str,
    config: TrainConfig,
    savings: Savings,
    device: str,
    *,
    half: bool,
    processes: int = 1,
    tiled: bool = False,
) -> dict[Name, int]:
    """Bytes by component of a published architecture, at the fullest of encoding, training and preview.

    Args:
        family: sd15, sd2 or sdxl.
        config: The settings.
        savings: What is given up for memory.
        device: cuda, mps or cpu, where the VAE stays, and convolutions are kept twice.
        half: Whether the base is in half precision.
        processes: How many share a step's images; the bytes are those of each.
        tiled: Whether previews are decoded in tiles.
    """
    facts, trained = _facts()[family], trained_numbers(family, config)
    texts = sum(facts["text"]) if config.adapter.text_encoder or config.adapter.text_encoder_2 else 0
    width, half_mib = 2 if half else 4, MIB if half else 2 * MIB
    vae = facts["vae"] * width
    unet = _unet(facts, savings, device, width)
    always = texts * width + (vae if device == "cpu" else 0)
    own_mpx = _megapixels(config)
    shown = math.prod(config.preview_size) / MIB
    learned: dict[Name, float] = {"base": unet + always, "adapter": trained * TRAINED_BYTES}
    savings, share = _shared(savings, processes)
    between = trained * GRADIENT_BYTES if share > savings.batch_size else 0
    preview = max(_line(facts["denoising"], shown), _line(facts["tiled" if tiled else "decoding"], shown))
    moments: list[dict[Name, float]] = [
        {"base": sum(facts["text"]) * width + vae},  # captions are read before images, and the UNet after both
        {"base": texts * width + vae, "encoding": _line(facts["encoding"], own_mpx) * half_mib},
        learned | {"activations": activations(family, config, savings, half=half) * MIB + between},
        learned | {"preview": preview * half_mib + (0 if device == "cpu" else vae)},
    ]
    if config.dataset.prior_preservation:  # class images are generated and encoded once the UNet is there
        lines = [facts["denoising"], facts["tiled" if tiled else "decoding"], facts["encoding"]]
        generating = max(_line(line, own_mpx) for line in lines) * half_mib
        moments.append({"base": unet + always + (0 if device == "cpu" else vae), "encoding": generating})
    fullest = max(moments, key=lambda parts: sum(parts.values()))
    return {name: round(size) for name, size in fullest.items()}


def _shared(savings: Savings, processes: int) -> tuple[Savings, int]:
    """The savings with the images that each process takes at once, and how many it takes in a step."""
    share = ceil(savings.batch_size * savings.accumulation / processes)
    return replace(savings, batch_size=min(savings.batch_size, share)), share


def activations(family: str, config: TrainConfig, savings: Savings, *, half: bool) -> float:
    """MiB that a step makes and keeps for its backward pass, at its fullest."""
    facts, adapter = _facts()[family], config.adapter
    number = "half" if half and not adapter.dropout else "float"  # dropout is peft's, which computes in float32
    always, image, area = facts["activations"][number][savings.level]
    learns = (adapter.text_encoder, adapter.text_encoder_2)
    texts = sum(size for size, wanted in zip(facts["text_activations"][number], learns, strict=False) if wanted)
    chunks = config.dataset.caption_tokens // CHUNK_TOKENS
    return float(always + savings.batch_size * (image + area * _megapixels(config) + texts * chunks))


def _megapixels(config: TrainConfig) -> float:
    """Of one image, in 2^20 px: buckets have about this area."""
    return config.dataset.resolution**2 / MIB


def _unet(facts: dict[str, int], savings: Savings, device: str, width: int) -> int:
    """Bytes of the UNet's weights; while a quantized one is used, it and its codes are there in full."""
    if savings.quantize == "none" and device == "cpu" and not savings.stream:
        return (facts["unet"] + facts["packed"]) * width
    blocks = BUFFERS * facts["block"] if savings.stream else 0
    blocks += 0 if _elsewhere(savings, device) else facts["held"]
    used = 0 if savings.quantize == "none" else 2 * facts["largest"]
    return round(blocks * _each(savings.quantize, width)) + (facts["unet"] - facts["held"] + used) * width


def _each(quantize: Quantize, width: int) -> float:
    return width if quantize == "none" else QUANTIZED_BYTES[quantize] + width / 64


def besides(family: str, savings: Savings, device: str, *, half: bool) -> int:
    """Bytes of system memory that streamed blocks take where the device has memory of its own."""
    offloaded: int = _facts()[family]["held"] if _elsewhere(savings, device) else 0
    return round(offloaded * _each(savings.quantize, 2 if half else 4))


def _elsewhere(savings: Savings, device: str) -> bool:
    """Whether the UNet's blocks lie in another memory than the device's own."""
    return savings.stream and device == "cuda"


def _line(numbers: list[float], megapixels: float) -> float:
    """MiB of one image: a constant, and more per 2^20 px."""
    return numbers[0] + numbers[1] * megapixels


def budget(config: TrainConfig, room: int) -> int:
    """Bytes that the training may take of those that are free."""
    return min(round(config.model.memory_limit * GIB) or room, room)


def choose(
    family: str, config: TrainConfig, budget: int | None, device: str, *, half: bool, processes: int = 1
) -> MemoryPlan:
    """The fastest savings that fit into `budget` bytes, or those that take least; what the user chose stays.

    Where none fit, the plan names a resolution at which they would.
    """
    plan = _fastest(family, config, budget, device, half=half, processes=processes)
    if plan.fits or budget is None:
        return plan
    return replace(plan, smaller=smaller(family, config, budget, device, half=half, processes=processes))


def smaller(
    family: str, config: TrainConfig, budget: int, device: str, *, half: bool, processes: int = 1
) -> int | None:
    """Returns the largest resolution that fits, between the requested one and half of it; None if none does."""
    requested = config.dataset.resolution
    for size in range((requested - 1) // SIZE_STEP * SIZE_STEP, ceil(requested / 2) - 1, -SIZE_STEP):
        less = config.model_copy(update={"dataset": config.dataset.model_copy(update={"resolution": size})})
        if _fastest(family, less, budget, device, half=half, processes=processes).fits:
            return size
    return None


def _fastest(
    family: str, config: TrainConfig, budget: int | None, device: str, *, half: bool, processes: int
) -> MemoryPlan:
    """The first savings that fit; whole previews before those in tiles, which show faint seams at worst."""
    for savings in ladder(config, device):
        for tiled in (False, True):
            parts = predict(family, config, savings, device, half=half, processes=processes, tiled=tiled)
            streamed = besides(family, savings, device, half=half)
            plan = MemoryPlan(savings, parts, budget, streamed, tiled, processes)
            if plan.fits:
                return plan
    return plan


def ladder(config: TrainConfig, device: str) -> Iterator[Savings]:
    """Savings from the first to be taken to the last; the images per update stay the same.

    Time is given up before the base's precision, and with fewer bits no more time than it takes.
    """
    requested, dataset = config.model.gradient_checkpointing, config.dataset
    batch, passes = dataset.batch_size, dataset.accumulation
    levels = LEVELS if requested == "auto" else (requested,)
    for quantize, stream in _bases(config, device):
        for level in levels:
            yield Savings(level, batch, passes, quantize, stream)
        for size in range(batch - 1, 0, -1):
            if batch % size == 0:
                yield Savings(levels[-1], size, passes * (batch // size), quantize, stream)


def _bases(config: TrainConfig, device: str) -> Iterator[tuple[Quantize, bool]]:
    """Yields quantization and whether blocks are offloaded, which saves nothing where device and system share RAM."""
    bits: tuple[Quantize, ...] = get_args(Quantize) if config.model.quantize == "auto" else (config.model.quantize,)
    for quantize in bits:
        yield quantize, config.model.offload == "on"
    if config.model.offload == "auto" and device == "cuda":
        yield bits[-1], True


def next_below(config: TrainConfig, device: str, savings: Savings) -> Savings | None:
    """The first of them that saves more than these and gives nothing of them back; None if there is none."""
    return next((more for more in ladder(config, device) if more != savings and _saved(more, savings)), None)


def _saved(more: Savings, less: Savings) -> bool:
    """Whether all that `less` saves is saved by `more` too."""
    bits = get_args(Quantize)
    return (
        LEVELS.index(more.level) >= LEVELS.index(less.level)
        and more.accumulation >= less.accumulation
        and bits.index(more.quantize) >= bits.index(less.quantize)
        and more.stream >= less.stream
    )


def words(savings: Savings) -> str:
    """Names what is given up: "gradient checkpointing (transformer blocks), batch 2, base model quantized to 8-bit"."""
    offloaded = OFFLOADED if savings.stream else ""
    batch = f"batch {savings.batch_size}{' with gradient accumulation' if savings.accumulation > 1 else ''}"
    return f"{CHECKPOINTED[savings.level]}, {batch}{QUANTIZED[savings.quantize]}{offloaded}"


def price(savings: Savings) -> str:
    """What that costs."""
    return PRICE if savings.quantize == "none" else COARSER


def sentence(plan: MemoryPlan) -> str:
    """Returns why: "To fit into 5.6 GiB: gradient checkpointing (transformer blocks), batch 2; about 5.1 GiB"."""
    room = f"To fit into {plan.budget / GIB:.1f} GiB: " if plan.budget is not None else ""
    return f"{room}{_given_up(plan)}; about {plan.peak / GIB:.1f} GiB{_besides(plan)}"


def details(plan: MemoryPlan) -> str:
    """Its parts: "about 5.1 of 6.0 GiB (base 1.6, adapter 0.1, activations 3.4); no gradient checkpointing, …"."""
    parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in plan.parts.items())
    room = f" of {plan.budget / GIB:.1f}" if plan.budget is not None else ""
    each = f" in each of {plan.processes} processes" if plan.processes > 1 else ""
    short = "" if plan.fits else f". Too little is free. {for_console(remedy(plan.smaller)).removesuffix('.')}"
    return f"about {plan.peak / GIB:.1f}{room} GiB{each} ({parts}){_besides(plan)}; {_given_up(plan)}{short}"


def remedy(smaller: int | None) -> str:
    """What to do where nothing fits, or nothing helped."""
    if smaller is None:
        return f"Close other programs, or set a smaller {setting('dataset.resolution')}."
    return f"Set {setting('dataset.resolution', smaller)}, which should fit, or close other programs."


def _given_up(plan: MemoryPlan) -> str:
    own, _ = _shared(plan.savings, plan.processes)
    return words(own) + (", previews decoded in tiles" if plan.tiled else "")


def _besides(plan: MemoryPlan) -> str:
    return f", and {plan.besides / GIB:.1f} GiB of system RAM" if plan.besides else ""
