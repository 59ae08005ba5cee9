"""What a run leaves: previews and files."""

from typing import Literal

from trainer.contract.settings.fields import Section, WeightsName, setting

TagsTold = Literal["auto", "none", "tags", "all"]
PREVIEW_GRID_PX = 8  # sides of previews are multiples: a VAE shrinks an image by as much


class PreviewSettings(Section):
    """Sample images generated while training."""

    prompts: tuple[str, ...] = setting(
        (), description="Sample prompts, one preview each; empty: the first captions of the data set."
    )
    negative_prompt: str = setting("", description="Negative prompt of previews.")
    every: int = setting(
        0, ge=0, le=1_000_000, unit="steps", description="Sample every N steps; 0: five times over the run."
    )
    steps: int = setting(25, ge=1, le=150, unit="steps", description="Sampling steps of a preview.")
    guidance_scale: float = setting(7.0, ge=1.0, le=30.0, description="CFG scale of previews.")
    seed: int = setting(1234, ge=0, le=2**31 - 1, description="Seed of the first preview; each next one adds 1.")
    width: int = setting(
        0,
        ge=0,
        le=2048,
        multiple_of=PREVIEW_GRID_PX,
        unit="px",
        description="Width of previews, a multiple of 8; 0: the training resolution.",
    )
    height: int = setting(
        0,
        ge=0,
        le=2048,
        multiple_of=PREVIEW_GRID_PX,
        unit="px",
        description="Height of previews, a multiple of 8; 0: the training resolution.",
    )


class OutputSettings(Section):
    """The files a run leaves."""

    name: WeightsName = setting(
        "", level="basic", max_length=80, description="Name of the LoRA file; empty: the preset's name."
    )
    dtype: Literal["fp16", "bf16", "fp32"] = setting("fp16", description="Number format of the LoRA file.")
    tags: TagsTold = setting(
        "auto",
        description="Tags of the captions that the LoRA file names, with counts. auto: tags of up to 3 words that "
        "several images share, without likely names; none; tags: all of up to 3 words; all: whole captions too.",
    )
    files: int = setting(
        10,
        ge=1,
        le=100,
        unit="files",
        description="LoRA files saved over the run, evenly spaced (kohya: save every N); the last is the result.",
    )
    checkpoint_every: int = setting(
        0,
        ge=0,
        le=1_000_000,
        unit="steps",
        description="Save a resumable checkpoint every N steps; 0: ten over the run.",
    )
    keep_checkpoints: int = setting(
        2, ge=1, le=100, unit="checkpoints", description="Checkpoints to keep; older ones are deleted."
    )
