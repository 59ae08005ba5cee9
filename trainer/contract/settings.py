"""Every setting, declared once: type, range, unit, help. TOML, flags, page, API and error text come from here."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from trainer.contract.errors import InvalidSettings

Level = Literal["basic", "advanced"]
Checkpointing = Literal["none", "feed_forward", "blocks", "full"]
Quantize = Literal["none", "8bit", "4bit"]
NAME_BYTES = 200  # file systems allow 255, and 80 letters can take 320
WINDOWS_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}


class Section(BaseModel):
    """A frozen group of settings that refuses unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def setting(default: Any, *, description: str, level: Level = "advanced", unit: str = "", **limits: Any) -> Any:  # noqa: ANN401
    """One setting: default, help, range (`ge`, `le`, `min_length`), unit, and whether the page shows it at once."""
    return Field(default, description=description, json_schema_extra={"level": level, "unit": unit}, **limits)


def plain_file_name(name: str) -> str:
    """The name, fit to be a file's on every system.

    Raises:
        ValueError: Saying what is wrong with it.
    """
    if name != name.strip() or name.startswith(".") or any(c in '/\\:*?"<>|' or ord(c) < 32 for c in name):
        raise ValueError('must be a plain file name: no / \\ : * ? " < > |, no leading dot, no blanks at the ends')
    if name.split(".", maxsplit=1)[0].rstrip().upper() in WINDOWS_DEVICES:
        raise ValueError("is a device on Windows, so no file can have this name there")
    size = len(name.encode())
    if size > NAME_BYTES:
        raise ValueError(f"takes {size} bytes; {NAME_BYTES} leave room for step and ending in a file's name")
    return name


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
    checkpointing: Literal["auto", Checkpointing] = setting(
        "auto",
        description="What is computed again in the backward pass to save memory, and up to a third slower: nothing, "
        "feed-forward layers, whole transformer blocks, or all; auto: as little as fits.",
    )
    quantize: Literal["auto", Quantize] = setting(
        "auto",
        description="Hold the frozen UNet's weights in 8 or 4 bits to save memory (QLoRA): slower, and the LoRA learns "
        "against a base that is a little coarser; auto: only where nothing else makes it fit.",
    )
    stream: Literal["auto", "on", "off"] = setting(
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
    device: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", description="Where to compute.")
    processes: int = setting(
        1, ge=1, le=64, description="Processes that share each step's pictures; with graphics cards one for each card."
    )
    seed: int = setting(42, ge=0, le=2**31 - 1, description="Start of all randomness; the same seed repeats a run.")


class DatasetSettings(Section):
    """Pictures, captions, and how often each is shown."""

    images: str = setting("", level="basic", description="Folder with the pictures and their .txt captions.")
    captions: str = setting(
        "", description="File with captions (metadata.jsonl) that go before the .txt files; empty: none."
    )
    trigger_word: str = setting(
        "",
        level="basic",
        max_length=60,
        description="Put first in every caption; calls the subject up later.",
    )
    views: int = setting(
        100,
        ge=1,
        le=10_000,
        level="basic",
        unit="times",
        description="How often each picture is shown (kohya: repeats x epochs).",
    )
    min_total_views: int = setting(
        1, ge=1, le=1_000_000, unit="views", description="Few pictures are shown more often, up to this total."
    )
    max_total_views: int = setting(
        1_000_000,
        ge=1,
        le=1_000_000,
        unit="views",
        description="Many pictures are shown less often, down to this total.",
    )
    batch_size: int = setting(1, ge=1, le=64, unit="pictures", description="Pictures per forward pass.")
    accumulation: int = setting(
        1,
        ge=1,
        le=128,
        unit="passes",
        description="Forward passes per step; batch size x accumulation is what the recipe sees.",
    )
    resolution: int = setting(
        512, ge=32, le=2048, unit="px", description="Side of the square whose area every picture is scaled to."
    )
    flip: bool = setting(False, description="Also show mirrored pictures; not for faces or text.")
    caption_tokens: int = setting(
        75,
        ge=75,
        le=225,
        multiple_of=75,
        unit="tokens",
        description="Longest caption: 75 is what the text encoder reads at once, 150 and 225 are read in parts.",
    )
    caption_dropout: float = setting(
        0.0, ge=0.0, le=1.0, unit="share", description="Share of views without a caption, which guidance learns from."
    )
    shuffle_tags: bool = setting(False, description="Shuffle comma-separated tags from view to view.")
    keep_tags: int = setting(
        1, ge=0, le=32, unit="tags", description="Tags at the start that shuffling leaves in place."
    )

    @model_validator(mode="after")
    def _totals_in_order(self) -> Self:
        if self.min_total_views > self.max_total_views:
            raise ValueError(
                f"min_total_views ({self.min_total_views}) is above max_total_views ({self.max_total_views})"
            )
        return self


class AdapterSettings(Section):
    """Size and strength of the LoRA update."""

    rank: int = setting(
        16,
        ge=2,
        le=256,
        level="basic",
        description="Width of the update (kohya: network dim). Higher learns finer detail and makes a larger file.",
    )
    alpha: float = setting(
        8.0,
        ge=0.01,
        le=256.0,
        level="basic",
        description="Strength: the update is multiplied by alpha / rank.",
    )
    dropout: float = setting(
        0.0, ge=0.0, le=0.9, unit="share", description="Share of LoRA inputs switched off at random."
    )
    targets: Literal["attention", "attention_mlp"] = setting(
        "attention_mlp",
        description="Layers that learn: attention alone, or attention, projections and feed-forward (kohya's set).",
    )
    text_encoder: bool = setting(False, description="Also train the text encoder, at its own learning rate.")
    text_encoder_2: bool = setting(False, description="Also train SDXL's second, larger text encoder.")
    start_from: str = setting(
        "", description="LoRA file to go on from; rank and alpha must be the file's own. Empty: start fresh."
    )


class OptimizerSettings(Section):
    """AdamW and its learning rate over time."""

    learning_rate: float = setting(
        2e-4,
        gt=0.0,
        le=0.1,
        level="basic",
        description="Learning rate of the UNet's LoRA; strength of learning is this x alpha / rank.",
    )
    text_learning_rate: float = setting(5e-5, gt=0.0, le=0.1, description="Learning rate of the text encoder's LoRA.")
    schedule: Literal["constant", "linear", "cosine"] = setting(
        "cosine", description="Shape of the learning rate over the run."
    )
    warmup: float = setting(
        0.05, ge=0.0, le=0.5, unit="share", description="Share of the steps over which the learning rate rises."
    )
    weight_decay: float = setting(0.01, ge=0.0, le=1.0, description="AdamW's pull of the weights towards zero.")
    beta1: float = setting(0.9, ge=0.0, lt=1.0, description="AdamW's memory of the gradient.")
    beta2: float = setting(0.99, ge=0.0, lt=1.0, description="AdamW's memory of the squared gradient.")
    clip_norm: float = setting(1.0, ge=0.0, le=100.0, description="Largest gradient norm; 0 switches clipping off.")


class ObjectiveSettings(Section):
    """What the network is asked to predict, and how errors are weighted."""

    prediction: Literal["auto", "epsilon", "v_prediction"] = setting(
        "auto", description="What the base model predicts; auto reads it from the model."
    )
    min_snr_gamma: float = setting(
        5.0, ge=0.0, le=100.0, description="Caps the weight of low-noise steps (Hang et al. 2023); 0 switches it off."
    )
    noise_offset: float = setting(
        0.0, ge=0.0, le=1.0, description="Per-channel shift of the noise, for darker darks and lighter lights."
    )
    zero_terminal_snr: Literal["auto", "on", "off"] = setting(
        "auto", description="Last timestep is pure noise; auto reads it from the model."
    )

    min_timestep: int = setting(
        0, ge=0, le=999, unit="of 1000", description="Least noisy timestep trained on; fine detail is decided there."
    )
    max_timestep: int = setting(
        1000,
        ge=1,
        le=1000,
        unit="of 1000",
        description="Noise is drawn below this timestep; what is shown is decided above about 600, how it looks below.",
    )

    keep_from_timestep: int = setting(
        1000,
        ge=1,
        le=1000,
        unit="of 1000",
        description="From this timestep on the base model's own prediction is the target: what is shown stays the "
        "base's, how it looks is learnt below. 1000: learn everything.",
    )
    keep_uncaptioned: bool = setting(
        False,
        description="Without a caption (see caption_dropout) the base model's own prediction is the target: guidance "
        "then strengthens what the captions teach.",
    )

    @model_validator(mode="after")
    def _possible_together(self) -> Self:
        if self.min_timestep >= self.max_timestep:
            raise ValueError(f"min_timestep ({self.min_timestep}) is not below max_timestep ({self.max_timestep})")
        if self.zero_terminal_snr == "on" and self.prediction == "epsilon":
            raise ValueError("zero_terminal_snr needs v_prediction: with epsilon the last timestep is 0/0")
        if self.zero_terminal_snr == "on" and self.noise_offset > 0:
            raise ValueError(
                f"zero_terminal_snr already reaches black and white; set noise_offset ({self.noise_offset:g}) to 0"
            )
        return self


class PreviewSettings(Section):
    """Sample pictures drawn while training."""

    prompts: tuple[str, ...] = setting(
        (), description="One preview per prompt; none: the first captions of the data set."
    )
    negative_prompt: str = setting("", description="What previews should avoid.")
    every: int = setting(
        0, ge=0, le=1_000_000, unit="steps", description="Steps between previews; 0: five times over the run."
    )
    steps: int = setting(25, ge=1, le=150, unit="steps", description="Denoising steps of a preview.")
    guidance_scale: float = setting(7.0, ge=1.0, le=30.0, description="How strongly a preview follows its prompt.")
    seed: int = setting(1234, ge=0, le=2**31 - 1, description="Seed of the first preview; the next one counts up.")
    width: int = setting(0, ge=0, le=2048, unit="px", description="Width of previews; 0: the training resolution.")
    height: int = setting(0, ge=0, le=2048, unit="px", description="Height of previews; 0: the training resolution.")


class OutputSettings(Section):
    """The files a run leaves."""

    name: str = setting(
        "", level="basic", max_length=80, description="Name of the LoRA file; empty: the preset's name."
    )
    dtype: Literal["fp16", "bf16", "fp32"] = setting("fp16", description="Number format of the LoRA file.")
    files: int = setting(
        10, ge=1, le=100, unit="files", description="LoRA files over the run, evenly spaced; the last is the result."
    )
    checkpoint_every: int = setting(
        0, ge=0, le=1_000_000, unit="steps", description="Steps between resumable checkpoints; 0: ten over the run."
    )
    keep_checkpoints: int = setting(2, ge=1, le=100, unit="checkpoints", description="Newest checkpoints kept.")

    @field_validator("name")
    @classmethod
    def _a_plain_file_name(cls, name: str) -> str:
        return plain_file_name(name)


class TrainConfig(Section):
    """One run, complete."""

    preset: str = Field(
        "", description="The preset this run started from.", json_schema_extra={"level": "advanced", "unit": ""}
    )
    goal: Literal["style", "character", "concept"] = Field(
        "style", description="What is learnt.", json_schema_extra={"level": "advanced", "unit": ""}
    )
    model: ModelSettings = ModelSettings()
    dataset: DatasetSettings = DatasetSettings()
    adapter: AdapterSettings = AdapterSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    preview: PreviewSettings = PreviewSettings()
    output: OutputSettings = OutputSettings()


SECTIONS: dict[str, type[Section]] = {
    name: field.annotation
    for name, field in TrainConfig.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}


def validated(values: dict[str, Any]) -> TrainConfig:
    """The settings as one frozen object.

    Raises:
        InvalidSettings: Naming every setting at fault, the value seen, and what is allowed.
    """
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise invalid(error) from None


def invalid(error: ValidationError) -> InvalidSettings:
    """pydantic's findings as one error in our words."""
    lines, hints = [], []
    places: dict[str, str] = {}
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"]) or "settings"
        places |= {at: _sentence(problem["msg"]) for at in _at_fault(place, problem["msg"])}
        if problem["type"] == "extra_forbidden":
            lines.append(f"There is no setting {place} (value seen: {problem['input']!r})")
            hints.append(_nearest(place))
        elif isinstance(problem["input"], dict | BaseModel):
            lines.append(f"{place}: {problem['msg'].removeprefix('Value error, ')}")
        else:
            lines.append(f"{place} = {problem['input']!r}: {problem['msg'].removeprefix('Value error, ')}")
    hint = (
        " ".join(dict.fromkeys(filter(None, hints))) or "`python launch.py --help` lists every setting with its range."
    )
    return InvalidSettings("; ".join(lines) + ".", hint=hint, places=places)


def _sentence(message: str) -> str:
    return message.removeprefix("Value error, ").rstrip(".") + "."


def _at_fault(place: str, message: str) -> list[str]:
    """The settings that a finding is about: its own place, or those of the section that its message names."""
    if place not in SECTIONS:
        return [place]
    return [f"{place}.{name}" for name in SECTIONS[place].model_fields if re.search(rf"\b{name}\b", message)]


def _nearest(place: str) -> str:
    """A suggestion for a misspelt setting, or nothing."""
    from difflib import get_close_matches

    known = [f"{section}.{name}" for section, fields in SECTIONS.items() for name in fields.model_fields]
    close = get_close_matches(place, known, n=1, cutoff=0.5)
    return f"Did you mean {close[0]}?" if close else ""
