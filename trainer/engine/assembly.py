"""A base model made ready for a run: its captions known, its encoders put away, the adapter attached."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from trainer.contract.events import EventLog, Warned
from trainer.contract.settings.config import AdapterSettings, Checkpointing, TrainConfig
from trainer.engine.adapters.fused import fuse, fuse_entries
from trainer.engine.adapters.lora import Adapter, attach, trained_components
from trainer.engine.adapters.lora_file import put_into
from trainer.engine.data.batches import TextStates
from trainer.engine.data.cache import TensorCache
from trainer.engine.data.encoding import Progress
from trainer.engine.families.base import Family
from trainer.engine.frozen.gradient_checkpointing import apply_level
from trainer.engine.frozen.lean_layers import free_convolutions, fuse_norms
from trainer.engine.frozen.packing import lay_out
from trainer.models.lora_header import check_start


def learn_text(
    family: Family,
    config: TrainConfig,
    captions: Sequence[str],
    *,
    dtype: torch.dtype,
    cache: TensorCache,
    progress: Progress,
) -> TextStates:
    """The captions and the negative prompt as conditioning; the encoders are then put away, unless trained."""
    trained = len(trained_components(config.adapter)) > 1
    text = TextStates(family, trained)
    text.learn([*captions, config.preview.negative_prompt], dtype, cache, progress)
    put_away(family, config)
    return text


def put_away(family: Family, config: TrainConfig) -> None:
    """Give up the encoders' memory, but for text encoders that are trained."""
    family.release_encoders(keep_text=len(trained_components(config.adapter)) > 1)


def add_adapter(family: Family, config: TrainConfig) -> Adapter:
    """A fresh adapter, and the model around it laid out for speed and as little memory as the settings say."""
    adapter, unet = attach(family, config.adapter, config.model.seed), family.component("unet")
    lay_out(unet)
    wished = config.model.checkpointing
    keep_less(family, adapter, config.adapter.dropout, "none" if wished == "auto" else wished)
    return adapter


def keep_less(family: Family, adapter: Adapter, dropout: float, level: Checkpointing) -> None:
    """Let the UNet keep for the backward pass only what it must, and at this level of recomputation yet less."""
    unet = family.component("unet")
    fuse_norms(unet)
    free_convolutions(unet)
    fuse(family, adapter, dropout)
    fuse_entries(unet)
    apply_level(unet, level)


def start_from(adapter: Adapter, settings: AdapterSettings, log: EventLog) -> None:
    """Give a fresh adapter the weights of the LoRA file to go on from; that the file lacks layers is told.

    Raises:
        InvalidSettings: There is no such file, it is no LoRA, or one of another rank or alpha.
        LoraRefused: It has layers that are not trained here.
    """
    check_start(settings)  # it may have changed since the run was made
    file = Path(settings.start_from)
    lacking = put_into(adapter, file)
    if lacking:
        log.write(
            Warned(
                code="layers_start_fresh",
                message=f"{file.name} lacks {len(lacking)} of {len(adapter.layers)} layers, first {lacking[0]}.",
                hint="These start fresh.",
            )
        )
