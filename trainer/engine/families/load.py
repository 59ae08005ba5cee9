"""From a base model's name to a loaded family."""

from collections.abc import Callable
from pathlib import Path

import torch

from trainer.contract.settings.config import TrainConfig
from trainer.dataset.clip_tokens import CHUNK_TOKENS
from trainer.engine.families.base import Family
from trainer.engine.families.noise import noise_spec
from trainer.engine.families.parts import Storage, load_parts
from trainer.engine.families.sdxl import StableDiffusionXL
from trainer.engine.families.unet import StableDiffusion
from trainer.models.compatible import check
from trainer.models.errors import NotABaseModel
from trainer.models.hub import fetch, look
from trainer.models.identify import BaseModel, identify
from trainer.models.lookup import located

Progress = Callable[[int, int], None]
FAMILIES: dict[str, type[StableDiffusion]] = {
    "sd15": StableDiffusion,
    "sd2": StableDiffusion,
    "sdxl": StableDiffusionXL,
}


def _silent(_done: int, _total: int) -> None:
    """Reports no progress."""


def base_path(base_model: str, fetching: Progress = _silent) -> Path:
    """Where a base model lies; one of the hub is fetched first if it is not here, with progress to `fetching` in MiB.

    Raises:
        HubError: It cannot be fetched.
    """
    return located(base_model) or fetch(look(base_model), lambda done, total: fetching(done // 2**20, total // 2**20))


def chosen_model(config: TrainConfig, fetching: Progress = _silent) -> BaseModel:
    """What the base model is, which lies on this computer from now on.

    Raises:
        HubError: It is one of the hub, and cannot be fetched.
        BaseModelMissing: Nothing at its path.
        NotABaseModel: Something else than a base model.
        InvalidSettings: The settings want another family, or do not suit the model.
    """
    model = identify(base_path(config.model.base_model, fetching), own_vae=not config.model.vae)
    check(model, config)
    return model


def load_family(config: TrainConfig, device: torch.device, dtype: torch.dtype) -> Family:
    """The base model, frozen, on the device.

    Raises:
        TrainerError: As `chosen_model` has it, or a part of it cannot be read.
    """
    model = chosen_model(config)
    vae = Path(config.model.vae).expanduser() if config.model.vae else None
    requested = config.model.quantize
    storage = Storage(dtype, "none" if requested == "auto" else requested, device, stream=config.model.offload == "on")
    parts = load_parts(model, vae, storage)
    if model.layout == "file":  # a folder's scheduler says it itself
        parts.scheduler |= {"prediction_type": model.prediction, "rescale_betas_zero_snr": model.zero_terminal_snr}
    try:
        return FAMILIES[model.family](
            model.family,
            parts,
            noise_spec(parts.scheduler, config.objective),
            device,
            clip_skip=config.model.clip_skip or model.clip_skip,
            chunks=config.dataset.caption_tokens // CHUNK_TOKENS,
        )
    except (KeyError, ValueError) as error:
        raise NotABaseModel(model.path, f"its scheduler's configuration cannot be used ({error})") from error
