"""How a base model was noised, and the scheduler that generates its previews with the same noise."""

from collections.abc import Mapping
from typing import Any

import diffusers
from diffusers import DDIMScheduler

from trainer.contract.settings.learning import ObjectiveSettings
from trainer.engine.families.base import NoiseSpec
from trainer.models.compatible import noise_of
from trainer.models.identify import Prediction


def noise_spec(scheduler: Mapping[str, Any], settings: ObjectiveSettings) -> NoiseSpec:
    """The training noise that a scheduler's configuration describes, with what the user decided otherwise.

    Raises:
        InvalidSettings: A combination that the model rules out, as "auto" is only known here.
    """
    prediction: Prediction = "v_prediction" if scheduler.get("prediction_type") == "v_prediction" else "epsilon"
    prediction, zero_snr = noise_of(prediction, bool(scheduler.get("rescale_betas_zero_snr", False)), settings)
    return NoiseSpec(
        num_timesteps=int(scheduler["num_train_timesteps"]),
        beta_start=float(scheduler["beta_start"]),
        beta_end=float(scheduler["beta_end"]),
        beta_schedule=str(scheduler["beta_schedule"]),
        prediction=prediction,
        zero_terminal_snr=zero_snr,
    )


def preview_scheduler(config: Mapping[str, Any], noise: NoiseSpec) -> Any:  # noqa: ANN401 - diffusers' schedulers share no public base with these methods
    """The model's own kind of scheduler for this noise; DDIM where that kind cannot end in pure noise.

    Raises:
        ValueError: The configuration names no scheduler.
    """
    name = config.get("_class_name", "PNDMScheduler")
    kind: Any = getattr(diffusers, name, None)
    if not hasattr(kind, "from_config") or not hasattr(kind, "step"):
        raise ValueError(f"its scheduler is of an unknown kind ({name})")
    requested: dict[str, Any] = {"prediction_type": noise.prediction}
    if noise.zero_terminal_snr:
        # Sampling must begin at the last timestep, which holds no image at all (Lin et al. 2023, section 3.3)
        requested |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        kind = kind if hasattr(kind.from_config(config).config, "rescale_betas_zero_snr") else DDIMScheduler
    return kind.from_config(config, **requested)
