"""How often a model halves what it is given: its VAE and its UNet, known before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from trainer.contract.errors import ModelError
from trainer.contract.settings.config import ModelSettings
from trainer.models.compatible import located
from trainer.models.identify import Family, identify

PUBLISHED: Mapping[Family, tuple[int, int]] = {"sd15": (4, 4), "sd2": (4, 4), "sdxl": (4, 3)}


def depths_of(settings: ModelSettings) -> tuple[int, int]:
    """Levels of the chosen model's VAE and UNet; the published ones of its family where the model does not tell."""
    path = located(settings.base_model)
    if path is not None and path.is_dir():
        with suppress(OSError, ValueError, LookupError, TypeError):  # what is wrong with a model is told elsewhere
            return _levels(path / "vae"), _levels(path / "unet")
    family: Family = "sd15" if settings.family == "auto" else settings.family
    if settings.family == "auto" and path is not None:
        with suppress(ModelError):
            family = identify(path).family
    return PUBLISHED[family]


def _levels(part: Path) -> int:
    return len(json.loads((part / "config.json").read_text(encoding="utf-8"))["block_out_channels"])
