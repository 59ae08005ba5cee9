"""What is trained, and how: adapter, optimizer, objective."""

from typing import Literal, Self

from pydantic import model_validator

from trainer.contract.settings.fields import PastedPath, Section, setting
from trainer.contract.wording import named


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
        description="Strength (kohya: network alpha): the update is multiplied by alpha / rank.",
    )
    dropout: float = setting(
        0.0,
        ge=0.0,
        le=0.9,
        unit="share",
        description="Share of LoRA inputs dropped at random (kohya: network dropout).",
    )
    targets: Literal["attention", "attention_mlp"] = setting(
        "attention_mlp",
        description="Trained layers: attention only, or attention, projections and feed-forward (kohya's set).",
    )
    text_encoder: bool = setting(False, description="Also train the text encoder, with its own learning rate.")
    text_encoder_2: bool = setting(False, description="Also train SDXL's second, larger text encoder.")
    start_from: PastedPath = setting(
        "",
        description="LoRA file to continue (kohya: network weights), of the same rank and alpha. Empty: start fresh.",
    )


class OptimizerSettings(Section):
    """AdamW and its learning rate over time."""

    learning_rate: float = setting(
        2e-4,
        gt=0.0,
        le=0.1,
        level="basic",
        description="Learning rate of the UNet's LoRA (kohya: unet lr); its effect scales with alpha / rank.",
    )
    text_learning_rate: float = setting(
        5e-5,
        gt=0.0,
        le=0.1,
        description="Learning rate of the text encoder's LoRA.",
        when=("adapter.text_encoder", "adapter.text_encoder_2"),
    )
    lr_scheduler: Literal["constant", "linear", "cosine"] = setting("cosine", description="Learning rate scheduler.")
    warmup: float = setting(
        0.05, ge=0.0, le=0.5, unit="share", description="Warmup: share of the steps over which the learning rate rises."
    )
    weight_decay: float = setting(0.01, ge=0.0, le=1.0, description="Weight decay of AdamW.")
    beta1: float = setting(0.9, ge=0.0, lt=1.0, description="β1, first-moment decay of AdamW.")
    beta2: float = setting(0.99, ge=0.0, lt=1.0, description="β2, second-moment decay of AdamW.")
    clip_norm: float = setting(1.0, ge=0.0, le=100.0, description="Gradient clipping (max grad norm); 0 turns it off.")


class ObjectiveSettings(Section):
    """What the network predicts, and how its loss is weighted."""

    prediction: Literal["auto", "epsilon", "v_prediction"] = setting(
        "auto", description="Prediction type of the base model; auto reads it from the model."
    )
    min_snr_gamma: float = setting(
        5.0,
        ge=0.0,
        le=100.0,
        description="Min-SNR gamma: caps the loss weight of low-noise timesteps (Hang et al. 2023); 0: off.",
    )
    noise_offset: float = setting(
        0.0, ge=0.0, le=1.0, description="Noise offset per channel, for darker darks and brighter lights."
    )
    zero_terminal_snr: Literal["auto", "on", "off"] = setting(
        "auto", description="Zero terminal SNR: the last timestep is pure noise; auto reads it from the model."
    )

    min_timestep: int = setting(
        0, ge=0, le=999, unit="of 1000", description="Lowest timestep trained on; low timesteps decide fine detail."
    )
    max_timestep: int = setting(
        1000,
        ge=1,
        le=1000,
        unit="of 1000",
        description="Timesteps are sampled below this one; above about 600 they decide composition and colors.",
    )

    keep_from_timestep: int = setting(
        1000,
        ge=1,
        le=1000,
        unit="of 1000",
        description="Keep colors and composition: from this timestep on the target is the base model's own prediction. "
        "A style with colors of its own needs 1000: learn everything.",
    )
    keep_uncaptioned: bool = setting(
        False,
        description="Where a caption is dropped the target is the base model's own prediction: CFG then strengthens "
        "what the captions teach. Images that have no caption are learned.",
        when=("dataset.caption_dropout",),
    )
    mask_keep: float = setting(
        1.0, ge=0, le=10, description="Masked loss: weight for keeping masked-out areas unchanged; 0: off, and faster."
    )

    @model_validator(mode="after")
    def _possible_together(self) -> Self:
        if self.min_timestep >= self.max_timestep:
            raise ValueError(
                f"{named('objective.min_timestep')} ({self.min_timestep}) is not below "
                f"{named('objective.max_timestep')} ({self.max_timestep})"
            )
        if self.keep_from_timestep <= self.min_timestep:
            raise ValueError(
                f"{named('objective.keep_from_timestep')} ({self.keep_from_timestep}) is not above "
                f"{named('objective.min_timestep')} ({self.min_timestep}): the base model would be kept wherever it is "
                "trained, and nothing learned"
            )
        zero_snr = named("objective.zero_terminal_snr")
        if self.zero_terminal_snr == "on" and self.prediction == "epsilon":
            raise ValueError(
                f"{zero_snr} needs {named('objective.prediction')} v_prediction: with epsilon the last timestep is 0/0"
            )
        if self.zero_terminal_snr == "on" and self.noise_offset > 0:
            offset = named("objective.noise_offset")
            raise ValueError(f"{zero_snr} already reaches black and white; set {offset} ({self.noise_offset:g}) to 0")
        return self
