"""What do you want to use it with? The base models there are, what the chosen one is, and what to set for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypedDict

from app.desk.begin import earlier
from app.desk.presets import order_of, preset_config, preset_title
from app.kit.text import say
from app.kit.wording import explained
from trainer.contract.errors import TrainerError
from trainer.contract.home import Home
from trainer.contract.pasted import pasted_model
from trainer.contract.presets import FOLDER, list_presets
from trainer.contract.settings.config import validated
from trainer.contract.units import size
from trainer.models.hub import is_hub_name, look
from trainer.models.identify import BaseModel, identify
from trainer.models.lookup import located, models_here, name_of, resolved

if TYPE_CHECKING:
    from trainer.models.installed import Found

Remedy = str | int | None  # a preset to use instead, or a resolution in px
TOY = "pocket"


class ModelData(TypedDict):
    """A model to choose, ready for JSON."""

    name: str  # as the setting holds it
    label: str
    about: str
    toy: bool


def base_models(home: Home, tongue: str, found: Sequence[Found] | None = None) -> list[ModelData]:
    """What can be chosen: models found here, the presets', those of earlier runs; the toy model last.

    Args:
        home: Holds runs and presets.
        tongue: The reader's language.
        found: The models on this computer; None: looked for.
    """
    made = {one["name"]: one for one in _found(models_here() if found is None else found)}
    usable = sorted(list_presets(home.presets, FOLDER)[0], key=lambda one: order_of(one.name))
    names = {config.model.base_model: "model.before" for config in earlier(home)}
    for one in usable:
        names.setdefault(str(one.values.get("model", {}).get("base_model", "")), "model.absent")
    names.pop("", None)
    for name, known in names.items():
        about = say(tongue, "model.hub" if is_hub_name(name) else known)
        made.setdefault(name, {"name": name, "label": name.rpartition("/")[2], "about": about, "toy": False})
    made.pop(TOY, None)
    toy = say(tongue, "model.toy"), say(tongue, "model.toy_about")
    return [*made.values(), {"name": TOY, "label": toy[0], "about": toy[1], "toy": True}]


def _found(found: Sequence[Found]) -> Iterator[ModelData]:
    for one in found:
        about = f"{one.model.kind} · {size(one.model.bytes)} · {one.where}"
        yield {"name": name_of(one), "label": one.name, "about": about, "toy": False}


def model_of(base_model: str) -> BaseModel | None:
    """The chosen model; None if it is not here, or none: what is wrong with it stands at the field."""
    try:
        path = located(resolved(pasted_model(base_model or "")))
        return identify(path) if path is not None else None
    except TrainerError:
        return None


def line_of(base_model: str, model: BaseModel | None, tongue: str) -> str:
    """Returns what the chosen model is, or that it will be downloaded; empty if it is nowhere."""
    name = pasted_model(base_model or "")
    if model is not None:
        return say(tongue, "model.cached", sentence=model.sentence()) if is_hub_name(name) else model.sentence()
    if is_hub_name(name) and located(name) is None:
        return say(tongue, "model.on_the_hub", name=name)
    return ""


def asked_of_hub(base_model: str, tongue: str) -> str:
    """Returns what the hub says of a model that is not downloaded yet; empty for any other."""
    name = pasted_model(base_model or "")
    if not is_hub_name(name) or located(name) is not None:
        return ""
    try:
        return say(tongue, "model.to_fetch", name=name, size=size(look(name).missing_bytes))
    except TrainerError as error:
        return explained(error, tongue)


def remedy_of(home: Home, model: BaseModel | None, *, family: str, resolution: int, preset: str, goal: str) -> Remedy:
    """What to set where the settings are made for another model: a preset, or only the resolution."""
    suits = model is not None and family in ("auto", model.family)
    if model is None or (suits and resolution == model.default_size):
        return None
    present = preset_config(home, preset) if preset else validated({})
    if present.model.family not in ("auto", model.family) or present.dataset.resolution != model.default_size:
        other = preset_of(home, model, goal)
        if other not in ("", preset):
            return other
    return model.default_size if suits else None


def preset_of(home: Home, model: BaseModel, goal: str) -> str:
    """The built-in preset for such a model, best of its size, of this goal and of its variant; empty for none."""
    usable, _ = list_presets(FOLDER)
    made = {one.name: preset_config(home, one.name) for one in usable}
    start = f"{model.variant or model.family}-".lower()

    def nearness(name: str) -> tuple[bool, bool, bool]:
        """How well a preset suits the model, first what matters most."""
        config = made[name]
        return config.dataset.resolution == model.default_size, config.goal == goal, name.startswith(start)

    return max((name for name in made if made[name].model.family == model.family), key=nearness, default="")


def preset_of_model(home: Home, base_model: str, goal: str) -> str:
    """The built-in preset that a chosen base model is trained with: by what it is, else by its name; empty for none."""
    model = model_of(base_model)
    usable, _ = list_presets(FOLDER)
    configs = {one.name: preset_config(home, one.name) for one in usable}
    named = [name for name, config in configs.items() if config.model.base_model == pasted_model(base_model)]
    if named:
        return max(named, key=lambda name: configs[name].goal == goal)
    return preset_of(home, model, goal) if model is not None else ""


def remedy_label(home: Home, remedy: Remedy, tongue: str) -> str:
    """What the button says; empty for none."""
    if remedy is None:
        return ""
    if isinstance(remedy, int):
        return say(tongue, "model.train_at", px=remedy)
    return say(tongue, "model.use_preset", preset=preset_title(home, remedy, tongue))
