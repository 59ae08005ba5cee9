"""Whether settings suit the base model they choose, checked before anything is loaded."""

import json
from contextlib import suppress
from pathlib import PurePath

from trainer.contract.errors import InvalidSettings
from trainer.contract.home import user_path
from trainer.contract.settings.config import TrainConfig
from trainer.contract.settings.learning import ObjectiveSettings
from trainer.contract.wording import named, setting
from trainer.models.completeness import check_vae
from trainer.models.identify import NAMES, BaseModel, Prediction, identify
from trainer.models.lookup import located, resolved

TEXT_LAYERS = 12


def check_chosen(config: TrainConfig) -> BaseModel | None:
    """Refuse settings that do not suit their base model, and return it; None for one not downloaded, checked later.

    Raises:
        ModelError: There is no base model of that name.
        InvalidSettings: The settings do not suit it, or several models have that name.
    """
    path = located(resolved(config.model.base_model))
    if path is None:
        return None
    model = identify(path, own_vae=not config.model.vae)
    check(model, config)
    return model


def check(model: BaseModel, config: TrainConfig) -> None:
    """Refuse settings that do not suit the base model.

    Raises:
        InvalidSettings: It is of another family, lacks layers that are trained or skipped, does not say what it
            predicts, or has another noise schedule.
    """
    name, settings = PurePath(config.model.base_model).name, config.model
    wanted = model.family if settings.family == "auto" else settings.family
    if wanted != model.family:
        seen = f"is {model.kind}; these settings are made for {NAMES[wanted]}"
        raise InvalidSettings(
            f"{name} {seen}.",
            hint=f"Choose a preset or a model of the other kind, or set {setting('model.family', model.family)}.",
            places={place: f"{name} {seen}." for place in ("model.base_model", "model.family")},
        )
    if settings.vae and not user_path(settings.vae).exists():
        raise _unsuited(
            "model.vae",
            f"No VAE at {settings.vae}",
            f"Give {setting('model.vae')} a file or a folder, or leave it empty for the model's own.",
        )
    if settings.vae:
        check_vae(user_path(settings.vae))
    if settings.clip_skip > 1 and model.family != "sd15":
        raise _unsuited(
            "model.clip_skip",
            f"{named('model.clip_skip')} = {settings.clip_skip}, but {name} is no SD 1.x",
            f"Set {setting('model.clip_skip', 0)}: SD 2.x and SDXL already skip their last layer.",
        )
    layers = _text_layers(model)
    if settings.clip_skip > layers:
        raise _unsuited(
            "model.clip_skip",
            f"{named('model.clip_skip')} = {settings.clip_skip}, but the text encoder of {name} has {layers} layers",
            f"Set {setting('model.clip_skip')} to at most {layers}, or to 0.",
        )
    if config.adapter.text_encoder_2 and model.family != "sdxl":
        raise _unsuited(
            "adapter.text_encoder_2",
            f"{named('adapter.text_encoder_2')} = true, but {name} is {model.kind} and has one text encoder",
            f"Set {setting('adapter.text_encoder_2', 'false')}.",
        )
    if model.prediction is None and config.objective.prediction == "auto":
        raise _unsuited(
            "objective.prediction",
            f"{name} does not say whether it predicts epsilon or v",
            f"Look at the model's page; then set {setting('objective.prediction', 'epsilon or v_prediction')}.",
        )
    noise_of(model.prediction or "epsilon", model.zero_terminal_snr, config.objective)


def _text_layers(model: BaseModel) -> int:
    """How many layers the text encoder has; as many as that of SD 1.x where no file says it."""
    with suppress(OSError, ValueError, LookupError, TypeError):  # what is wrong with a model is reported elsewhere
        config = json.loads((model.path / "text_encoder" / "config.json").read_text(encoding="utf-8"))
        return int(config["num_hidden_layers"])
    return TEXT_LAYERS


def noise_of(prediction: Prediction, zero_snr: bool, requested: ObjectiveSettings) -> tuple[Prediction, bool]:
    """Returns the prediction type and whether the SNR ends at zero: the user's choice, else the model's own.

    Raises:
        InvalidSettings: The model rules out the combination.
    """
    prediction = prediction if requested.prediction == "auto" else requested.prediction
    zero_snr = zero_snr if requested.zero_terminal_snr == "auto" else requested.zero_terminal_snr == "on"
    if zero_snr and prediction == "epsilon":
        raise _unsuited(
            "objective.zero_terminal_snr",
            f"{named('objective.zero_terminal_snr')} = on, but the model predicts epsilon: the last timestep is 0/0",
            f"Set {setting('objective.zero_terminal_snr', 'off')}.",
        )
    if zero_snr and requested.noise_offset > 0:
        raise _unsuited(
            "objective.noise_offset",
            f"{named('objective.noise_offset')} = {requested.noise_offset:g}, but the model has zero-terminal SNR",
            f"Set {setting('objective.noise_offset', 0)}.",
        )
    return prediction, zero_snr


def _unsuited(place: str, why: str, hint: str) -> InvalidSettings:
    return InvalidSettings(f"{why}.", hint=hint, places={place: f"{why}."})
