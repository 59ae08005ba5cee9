"""A base model made ready for a run: its captions known, its encoders put away, the adapter attached."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trainer.adapters import Adapter, attach
from trainer.contract.settings import TrainConfig
from trainer.data.batches import Progress, TextStates
from trainer.data.cache import TensorCache
from trainer.families.base import Family
from trainer.families.load import base_folder
from trainer.fused import fuse
from trainer.packing import pack_frozen


def learn_text(
    family: Family,
    config: TrainConfig,
    captions: Sequence[str],
    *,
    dtype: torch.dtype,
    cache: TensorCache,
    progress: Progress,
) -> TextStates:
    """The captions and the negative prompt as conditioning; the encoders then leave the device, unless trained."""
    text = TextStates(family, trained=config.adapter.text_encoder)
    folder = base_folder(config.model.base_model) / "text_encoder"
    text.learn([*captions, config.preview.negative_prompt], folder, dtype, cache, progress)
    family.release_encoders(keep_text=config.adapter.text_encoder)
    return text


def add_adapter(family: Family, config: TrainConfig) -> Adapter:
    """A fresh adapter, and the model around it laid out for speed."""
    adapter = attach(family, config.adapter, config.model.seed)
    pack_frozen(family.component("unet"))
    fuse(adapter, config.adapter.dropout)
    return adapter
