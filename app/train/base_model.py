"""The base model on the Train page: which there are, what the chosen one is, and what to set for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from app.kit.component import PRIVATE
from app.kit.form import Form
from app.kit.text import language, say
from app.kit.wording import explained
from app.train.presets import preset_config
from trainer.contract.errors import InvalidSettings, TrainerError
from trainer.contract.home import Home
from trainer.contract.pasted import pasted_model
from trainer.contract.presets import FOLDER, list_presets
from trainer.contract.settings.config import TrainConfig
from trainer.contract.units import size
from trainer.models.hub import is_hub_name, look
from trainer.models.identify import BaseModel, identify
from trainer.models.lookup import located, models_here, name_of, resolved
from trainer.runs.folder import RunFolder

if TYPE_CHECKING:
    from trainer.models.installed import Found

Remedy = str | int | None  # a preset to use instead, or a resolution in px


class BaseModelField:
    """The field, the line under it, and a button for what else to set."""

    def __init__(self, home: Home, form: Form) -> None:
        self.home, self.form = home, form
        with gr.Row(elem_classes="fields"):
            form.add("model.base_model", choices=base_models(home))
        self.line = gr.HTML(elem_id="model-line", apply_default_css=False)
        self.asked = gr.State({})  # of the model of the hub that was asked for last, what the hub said
        self.remedy = gr.Button(visible=False, size="sm", elem_id="model-remedy", elem_classes="remedy")

    def wire(self) -> None:
        """Ask the hub about a model that is not downloaded yet; list the models there are now."""
        base = self.form.controls["model.base_model"]

        def ask(request: gr.Request, base_model: str) -> dict[str, str]:
            """What the hub says of the model."""
            return asked_of_hub(base_model, language(request))

        def list_models() -> Any:  # noqa: ANN401 - an update
            """The models there are now."""
            return gr.update(choices=base_models(self.home, models_here()))

        # Only who leaves the field asks the hub: all else on the page stays on this computer
        base.blur(ask, base, self.asked, trigger_mode="always_last", **PRIVATE)  # type: ignore[attr-defined]
        gr.on(None, list_models, None, base, **PRIVATE)

    def described(self, base_model: str, asked: dict[str, str], tongue: str, **deciding: Any) -> dict[Any, Any]:  # noqa: ANN401
        """What the chosen model is, and what to set for it; `deciding` as `remedy_of` takes it."""
        model = model_of(base_model)
        remedy = remedy_of(self.home, model, **deciding)
        return {
            self.line: line_html(base_model, model, asked, tongue),
            self.remedy: gr.update(visible=remedy is not None, value=remedy_label(remedy, tongue)),
        }


def base_models(home: Home, found: Sequence[Found] = ()) -> list[tuple[str, str]]:
    """What the list of base models offers: the built-in one, those found, the presets', and those of earlier runs."""
    labels = {"pocket": "pocket", **{name_of(one): label_of(one) for one in found}}
    usable, _ = list_presets(FOLDER, home.presets)
    names = [str(one.values.get("model", {}).get("base_model", "")) for one in usable]
    names += [config.model.base_model for config in earlier(home)]
    return [(labels.get(name, name), name) for name in dict.fromkeys([*labels, *names]) if name]


def label_of(found: Found) -> str:
    """A model in the list: "ana — SDXL (Pony), 6.9 GB, Forge"."""
    return f"{found.name} — {found.model.kind}, {size(found.model.bytes)}, {found.where}"


def earlier(home: Home) -> Iterator[TrainConfig]:
    """The newest runs' settings."""
    for run in RunFolder.all(home)[:30]:
        try:
            yield run.config()
        except InvalidSettings:  # written by another version
            continue


def model_of(base_model: str) -> BaseModel | None:
    """The chosen model; None if it is not here, or none: what is wrong with it stands at the field."""
    try:
        path = located(resolved(pasted_model(base_model or "")))
        return identify(path) if path is not None else None
    except TrainerError:
        return None


def line_html(base_model: str, model: BaseModel | None, asked: dict[str, str], tongue: str) -> str:
    """Returns what the chosen model is, or that it will be downloaded; empty if it is nowhere."""
    name = pasted_model(base_model or "")
    if model is not None:
        line = say(tongue, "model.cached", sentence=model.sentence()) if is_hub_name(name) else model.sentence()
    elif is_hub_name(name) and located(name) is None:
        line = asked.get(name) or say(tongue, "model.on_the_hub", name=name)
    else:
        return ""
    return f'<p class="quiet">{escape(line)}</p>'


def asked_of_hub(base_model: str, tongue: str) -> dict[str, str]:
    """Returns what the hub says of a model that is not downloaded yet, by its name; empty for any other."""
    name = pasted_model(base_model or "")
    if not is_hub_name(name) or located(name) is not None:
        return {}
    try:
        return {name: say(tongue, "model.to_fetch", name=name, size=size(look(name).missing_bytes))}
    except TrainerError as error:
        return {name: explained(error, tongue)}


def remedy_of(home: Home, model: BaseModel | None, *, family: str, resolution: int, preset: str, goal: str) -> Remedy:
    """What to set where the settings are made for another model: a preset, or only the resolution."""
    suits = model is not None and family in ("auto", model.family)
    if model is None or (suits and resolution == model.default_size):
        return None
    present = preset_config(home, preset)
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


def remedy_label(remedy: Remedy, tongue: str) -> str:
    """What the button says."""
    if isinstance(remedy, int):
        return say(tongue, "model.train_at", px=remedy)
    return say(tongue, "model.use_preset", preset=remedy or "–")
