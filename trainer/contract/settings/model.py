"""The base model and how it is computed."""

from typing import Literal

from trainer.contract.settings.fields import PastedModel, PastedPath, Section, setting

Checkpointing = Literal["none", "feed_forward", "blocks", "full"]
Quantize = Literal["none", "8bit", "4bit"]


class ModelSettings(Section):
    """The base model and how it is computed."""

    family: Literal["auto", "sd15", "sd2", "sdxl"] = setting(
        "auto", description="Architecture these settings are for; a base model of another one is refused."
    )
    base_model: PastedModel = setting(
        "pocket",
        level="basic",
        min_length=1,
        description="A .safetensors checkpoint, a folder in the diffusers layout, a name on the Hugging Face hub, or "
        '"pocket" for the built-in miniature.',
    )
    vae: PastedPath = setting("", description="VAE file or folder to use instead of the model's own. Empty: its own.")
    clip_skip: int = setting(
        0,
        ge=0,
        le=11,
        unit="layers",
        description="CLIP skip, as in WebUIs, for SD 1.x; 0: as the model was trained.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto",
        description="Mixed precision: number format of the frozen base model and the math; LoRA weights stay fp32.",
    )
    gradient_checkpointing: Literal["auto", Checkpointing] = setting(
        "auto",
        description="Recompute activations in the backward pass to save memory, up to a third slower: none, "
        "feed-forward layers, transformer blocks, or all; auto: as little as fits.",
    )
    quantize: Literal["auto", Quantize] = setting(
        "auto",
        description="Base model quantized to 8-bit or 4-bit to save memory (QLoRA): slower, and the LoRA learns on "
        "slightly coarser weights; auto: only if nothing else makes it fit.",
    )
    offload: Literal["auto", "on", "off"] = setting(
        "auto",
        description="Offload the frozen UNet's blocks to system RAM and copy each to the GPU just before it computes "
        "(block swap): same results, least VRAM, but slower; auto: only if nothing else makes it fit.",
    )
    memory_limit: float = setting(
        0.0,
        ge=0,
        le=1_000_000,
        unit="GiB",
        description="Use no more memory than this: VRAM, or RAM without a GPU; 0: all.",
    )
    battery_limit: int = setting(
        10,
        ge=0,
        le=90,
        unit="%",
        description="Below this battery level, unless it is charging, a run saves and waits; 0: never.",
    )
    heat_limit: int = setting(
        0,
        ge=0,
        le=120,
        unit="°C",
        description="Above this CPU or GPU temperature a run saves and waits until it has cooled; 0: never.",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", description="Device to train on.")
    processes: int = setting(
        1, ge=1, le=64, description="Processes that share each step's images; with GPUs one per GPU."
    )
    seed: int = setting(42, ge=0, le=2**31 - 1, description="Seed of all randomness; the same seed repeats a run.")
