"""The base model and how it is computed."""

from __future__ import annotations

from typing import Literal

from trainer.contract.settings.fields import Section, setting

Checkpointing = Literal["none", "feed_forward", "blocks", "full"]


Quantize = Literal["none", "8bit", "4bit"]


class ModelSettings(Section):
    """The base model and how it is computed."""

    family: Literal["auto", "sd15", "sd2", "sdxl"] = setting(
        "auto", description="Architecture these settings are made for; another base model is refused."
    )
    base_model: str = setting(
        "pocket",
        level="basic",
        min_length=1,
        description="A .safetensors file, a folder in the diffusers layout, a name on the Hugging Face hub, or "
        '"pocket" for the built-in miniature.',
    )
    vae: str = setting("", description="Another VAE than the model's own: a file or folder. Empty: its own.")
    clip_skip: int = setting(
        0,
        ge=0,
        le=11,
        unit="layers",
        description="Text layer to read, counted from the end as clients do, in SD 1.x; 0: as the model was made.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto",
        description="Number format of the frozen base and of the arithmetic; LoRA weights are always fp32.",
    )
    gradient_checkpointing: Literal["auto", Checkpointing] = setting(
        "auto",
        description="What is computed again in the backward pass to save memory, and up to a third slower: nothing, "
        "feed-forward layers, whole transformer blocks, or all; auto: as little as fits.",
    )
    quantize: Literal["auto", Quantize] = setting(
        "auto",
        description="Hold the frozen UNet's weights in 8 or 4 bits to save memory (QLoRA): slower, and the LoRA learns "
        "against a base that is a little coarser; auto: only where nothing else makes it fit.",
    )
    offload: Literal["auto", "on", "off"] = setting(
        "auto",
        description="Keep the frozen UNet's blocks in system memory and copy each to the graphics card just before it "
        "computes: the same answers with the least of the card's memory, but slower; auto: only where nothing else "
        "makes it fit.",
    )
    memory_limit: float = setting(
        0.0,
        ge=0,
        unit="GiB",
        description="Take no more memory than this, of the graphics card if there is one; 0: all.",
    )
    battery_limit: int = setting(
        10,
        ge=0,
        le=90,
        unit="%",
        description="With less in the battery, and nothing that charges it, a run saves and waits; 0: never.",
    )
    heat_limit: int = setting(
        0,
        ge=0,
        le=120,
        unit="°C",
        description="With a hotter processor or graphics card a run saves and waits until it has cooled; 0: never.",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", description="Where to compute.")
    processes: int = setting(
        1, ge=1, le=64, description="Processes that share each step's images; with graphics cards one for each card."
    )
    seed: int = setting(42, ge=0, le=2**31 - 1, description="Start of all randomness; the same seed repeats a run.")
