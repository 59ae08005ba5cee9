"""What is trained, and how: adapter, optimizer, objective."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from trainer.contract.settings.fields import Section, setting
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
    lr_scheduler: Literal["constant", "linear", "cosine"] = setting(
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
            raise ValueError(
                f"{named('objective.min_timestep')} ({self.min_timestep}) is not below "
                f"{named('objective.max_timestep')} ({self.max_timestep})"
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
