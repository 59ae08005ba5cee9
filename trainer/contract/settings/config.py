"""Every setting, declared once: type, range, unit, help. TOML, flags, page, API and error text come from here."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from trainer.contract.settings.concepts import Concept
from trainer.contract.settings.fields import Section, invalid, plain_file_name, setting

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
        1, ge=1, le=64, description="Processes that share each step's pictures; with graphics cards one for each card."
    )
    seed: int = setting(42, ge=0, le=2**31 - 1, description="Start of all randomness; the same seed repeats a run.")


class DatasetSettings(Section):
    """Pictures, captions, and how often each is shown."""

    images: str = setting("", level="basic", description="Folder with the pictures and their .txt captions.")
    captions: str = setting(
        "",
        description="File with captions (metadata.jsonl) that go before the .txt files; not given: what was changed "
        "here, if anything.",
    )
    concepts: tuple[Concept, ...] = setting(
        (),
        description="Further folders of pictures, each with rules of its own. A line each: the folder, or JSON as in "
        '{"images": "ben", "trigger_word": "ben", "weight": 2}; also flip, captions, caption_dropout, shuffle_tags, '
        "keep_tags, tag_dropout.",
    )
    folder_repeats: bool = setting(
        True,
        description="A folder named as in kohya's tools, 10_ana woman, shows its pictures 10 times as often, and those "
        'without a caption as "ana woman".',
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
    further_resolutions: tuple[Annotated[int, Field(ge=32, le=2048)], ...] = setting(
        (),
        unit="px",
        description="Smaller sides, from 32, that pictures are scaled to in turn with the first.",
    )
    upscale: bool = setting(
        False,
        description="Enlarge small pictures to the full area; else they are shown as they are, or at half the "
        "resolution's side if they are smaller still.",
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
        1, ge=0, le=32, unit="tags", description="Tags at the start that shuffling and dropping leave in place."
    )
    tag_dropout: float = setting(
        0.0, ge=0.0, lt=1.0, unit="share", description="Share of comma-separated tags left out of a view."
    )
    background: str = setting(
        "#ffffff", pattern="^#[0-9a-fA-F]{6}$", description="Colour behind pictures where they are transparent."
    )
    alpha_mask: bool = setting(
        False, description="Learn only where pictures are opaque; a mask of their own goes before it."
    )
    protect: bool = setting(
        False,
        description="Protect the base model: it draws pictures before training, which are shown among yours and must "
        "stay as it sees them (prior preservation).",
    )
    protect_prompt: str = setting(
        "", description="What it draws, as in: a woman. Empty: your captions without their trigger words."
    )
    protect_pictures: int = setting(40, ge=1, le=1000, unit="pictures", description="How many it draws, once.")
    protect_share: float = setting(
        0.25, gt=0.0, le=0.5, unit="share", description="Their share of all views; yours are as many as without them."
    )
    cache_limit: float = setting(
        20.0, ge=0.0, unit="GiB", description="Size of the cache, beyond which what lay unused longest goes; 0: none."
    )

    def of_folder(self, number: int) -> Self:
        """These settings as they hold in folder 0, `images`, or in one of the concepts', 1, 2, …."""
        if number == 0:
            return self
        own = self.concepts[number - 1].model_dump(exclude={"weight"}, exclude_none=True)
        return self.model_copy(update=own)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.further_resolutions and max(self.further_resolutions) >= self.resolution:
            raise ValueError(
                f"further_resolutions ({max(self.further_resolutions)}) must be below resolution ({self.resolution})"
            )
        triggers = (self.trigger_word, *(concept.trigger_word for concept in self.concepts))
        if self.protect and not self.protect_prompt and not any(triggers):
            raise ValueError(
                "protect needs protect_prompt where no trigger_word tells what is learnt from what is kept"
            )
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
    mask_keep: float = setting(
        1.0, ge=0, le=10, description="How firmly what masks leave out is kept as the base has it; 0: not, but faster."
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
        raise invalid(error, SECTIONS) from None
