"""From a base model's name to a loaded family."""

from __future__ import annotations

from pathlib import Path

import torch

from trainer.contract.home import POCKET
from trainer.contract.settings import ModelSettings
from trainer.families.base import Family
from trainer.families.unet import StableDiffusion


def base_folder(base_model: str) -> Path:
    """Where a base model lies: "pocket" is the built-in one, anything else a path."""
    return POCKET if base_model == "pocket" else Path(base_model).expanduser()


def load_family(settings: ModelSettings, device: torch.device, dtype: torch.dtype) -> Family:
    """The base model, frozen, on the device.

    Raises:
        BaseModelMissing: Nothing at its path.
        NotABaseModel: Something else than a base model.
    """
    return StableDiffusion(base_folder(settings.base_model), device, dtype, settings.gradient_checkpointing)
