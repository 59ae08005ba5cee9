"""The base model that settings choose: where it lies, and whether they suit it; told before anything is loaded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePath
from threading import Lock
from typing import TYPE_CHECKING

from trainer.contract.errors import BaseModelMissing, InvalidSettings
from trainer.contract.home import POCKET, user_path
from trainer.contract.settings.config import ObjectiveSettings, TrainConfig
from trainer.models.headers import readable
from trainer.models.hub import is_hub_name, local_folder
from trainer.models.identify import NAMES, BaseModel, Prediction, identify

if TYPE_CHECKING:
    from trainer.models.installed import Found

FRESH_SECONDS = 60.0
ENDING = ".safetensors"
MOST_NAMED = 5
_looking = Lock()


def models_here() -> Sequence[Found]:
    """Base models on this computer, looked for once a minute at most: the page asks with every change of its form."""
    with _looking:
        return _models_of(int(time.monotonic() / FRESH_SECONDS))


@lru_cache(maxsize=1)
def _models_of(_minute: int) -> Sequence[Found]:
    from trainer.models.installed import find_models  # not above: it knows runs, and these know settled settings

    return tuple(find_models())


def name_of(found: Found) -> str:
    """What chooses a model that was found: its name on the hub, else its path."""
    from trainer.models.installed import HUB

    return found.name if found.where == HUB else str(found.path)


def resolved(base_model: str) -> str:
    """The same model under a name that holds in every folder: "pocket", its name on the hub, or its full path.

    A bare name that nothing here has is looked for among the models on this computer.

    Raises:
        BaseModelMissing: None of them has it.
        NotABaseModel: The system does not let us look.
        InvalidSettings: Several have it.
    """
    if base_model == "pocket" or is_hub_name(base_model):
        return base_model
    path = user_path(base_model)
    with readable(path):
        bare = path.name == base_model and not path.exists()
        return _called(base_model) if bare else str(path.resolve())


def _called(name: str) -> str:
    wanted = _stem(name)
    hits = [one for one in models_here() if _stem(one.name.rpartition("/")[2]) == wanted]
    if not hits:
        raise BaseModelMissing(Path(name))
    if len(hits) > 1:
        more = f" and {len(hits) - MOST_NAMED} more" if len(hits) > MOST_NAMED else ""
        raise InvalidSettings(
            f"{len(hits)} models are called {name}: {', '.join(map(name_of, hits[:MOST_NAMED]))}{more}.",
            hint="Give the one you mean, as it is written here.",
            places={"model.base_model": f"{len(hits)} models of that name."},
        )
    return name_of(hits[0])


def _stem(name: str) -> str:
    return name.casefold().removesuffix(ENDING)


def located(base_model: str) -> Path | None:
    """Where a base model lies on this computer; None for one of the hub that is still to be fetched."""
    if base_model == "pocket":
        return POCKET
    return local_folder(base_model) if is_hub_name(base_model) else user_path(base_model)


def check_chosen(config: TrainConfig) -> None:
    """Refuse settings that do not suit their base model; one still to be fetched is checked when it is here.

    Raises:
        ModelError: There is none of that name, or something else.
        InvalidSettings: As `check` has it, or several models have that name.
    """
    path = located(resolved(config.model.base_model))
    if path is not None:
        check(identify(path), config)


def check(model: BaseModel, config: TrainConfig) -> None:
    """Whether the settings suit what the base model is.

    Raises:
        InvalidSettings: It is of another family, lacks layers that are to be trained or left out, does not say what
            it predicts, or was noised otherwise.
    """
    name, settings = PurePath(config.model.base_model).name, config.model
    wanted = model.family if settings.family == "auto" else settings.family
    if wanted != model.family:
        seen = f"is {model.kind}; these settings are made for {NAMES[wanted]}"
        raise InvalidSettings(
            f"{name} {seen}.",
            hint=f"Choose a preset or a model of the other kind, or set --model.family {model.family}.",
            places={place: f"{name} {seen}." for place in ("model.base_model", "model.family")},
        )
    if settings.vae and not user_path(settings.vae).exists():
        raise _unsuited(
            "model.vae",
            f"No VAE at {settings.vae}",
            "Give --model.vae a file or a folder, or leave it empty for the model's own.",
        )
    if settings.clip_skip > 1 and model.family != "sd15":
        raise _unsuited(
            "model.clip_skip",
            f"model.clip_skip = {settings.clip_skip}, but {name} is no SD 1.x",
            "Set --model.clip_skip 0: SD 2.x and SDXL already leave their last layer out.",
        )
    if config.adapter.text_encoder_2 and model.family != "sdxl":
        raise _unsuited(
            "adapter.text_encoder_2",
            f"adapter.text_encoder_2 = true, but {name} is {model.kind} and has one text encoder",
            "Set --adapter.text_encoder_2 false.",
        )
    if model.prediction is None and config.objective.prediction == "auto":
        raise _unsuited(
            "objective.prediction",
            f"{name} does not say whether it predicts noise or velocity",
            "Look at the model's page; then set --objective.prediction epsilon or v_prediction.",
        )
    noise_of(model.prediction or "epsilon", model.zero_terminal_snr, config.objective)


def noise_of(prediction: Prediction, zero_snr: bool, wished: ObjectiveSettings) -> tuple[Prediction, bool]:
    """What is predicted, and whether noise ends in noise alone: the model's own, or what the user decided otherwise.

    Raises:
        InvalidSettings: A combination that the model rules out, as "auto" is only known with it.
    """
    prediction = prediction if wished.prediction == "auto" else wished.prediction
    zero_snr = zero_snr if wished.zero_terminal_snr == "auto" else wished.zero_terminal_snr == "on"
    if zero_snr and prediction == "epsilon":
        raise _unsuited(
            "objective.zero_terminal_snr",
            "objective.zero_terminal_snr = on, but the model predicts epsilon: the last timestep would be 0/0",
            "Set --objective.zero_terminal_snr off.",
        )
    if zero_snr and wished.noise_offset > 0:
        raise _unsuited(
            "objective.noise_offset",
            f"objective.noise_offset = {wished.noise_offset:g}, but the model has zero-terminal SNR",
            "Set --objective.noise_offset 0.",
        )
    return prediction, zero_snr


def _unsuited(place: str, why: str, hint: str) -> InvalidSettings:
    return InvalidSettings(f"{why}.", hint=hint, places={place: f"{why}."})
