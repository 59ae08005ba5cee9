"""Settings as controls: the few that matter as Gradio's, all others as one list, so that adding one needs no edit."""

from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component

from app.kit.settings_list import SETTINGS, SettingsList, element_id, help_of
from app.kit.text import setting_label
from trainer.contract.schema import SettingInfo
from trainer.contract.settings.config import SECTIONS, TrainConfig, validated
from trainer.contract.toml import flat

REST = "rest"  # the list among the inputs of an event


@dataclass
class Form:
    """The page's inputs: a control for each of some settings, and the list of all others."""

    preset: gr.Dropdown
    usual: dict[str, Any]  # what they show at first, by place
    rest: SettingsList
    controls: dict[str, Component] = field(default_factory=dict)

    def add(self, place: str, **options: Any) -> None:  # noqa: ANN401 - whatever the component takes
        """A setting's control, in the present layout."""
        with gr.Column(elem_classes="setting-row", min_width=160):
            self.controls[place] = control(place, **{"value": self.usual[place], **options})

    def named(self) -> dict[str, Block]:
        """The inputs by the names that the API gives them, and the list."""
        return {"preset": self.preset, **{api_name(p): one for p, one in self.controls.items()}, REST: self.rest}

    def filled(self, config: TrainConfig, **kept: Any) -> dict[Block, Any]:  # noqa: ANN401 - settings' values
        """What every input shows for these settings; `kept` by API name stays as it is."""
        values = {place: kept.get(api_name(place), value) for place, value in shown_values(config).items()}
        own: dict[Block, Any] = {
            self.controls[place]: value for place, value in values.items() if place in self.controls
        }
        return {**own, self.rest: {place: value for place, value in values.items() if place not in self.controls}}


def whole(named: dict[str, Any]) -> dict[str, Any]:
    """The inputs of an event with those of the list among them, all by API name."""
    rest = named.get(REST, {})
    own = {name: value for name, value in named.items() if name != REST}
    return {**own, **{api_name(place): value for place, value in rest.items()}}


def control(place: str, **options: Any) -> Component:  # noqa: ANN401 - whatever the component takes
    """The control of a number or a text, with its help and range."""
    info = SETTINGS[place]
    shared: dict[str, Any] = {
        "label": setting_label(info),
        "info": help_of(info),
        "value": shown(info, info.default),
        "elem_id": element_id(place),
        "interactive": True,
        **options,
    }
    if "choices" in options:
        return gr.Dropdown(allow_custom_value=True, **shared)
    if info.kind in ("whole", "number"):
        # Bounds are left to the settings' own check, whose message names value and range
        return gr.Number(precision=0 if info.kind == "whole" else None, **shared)
    return gr.Textbox(**shared)


def api_name(place: str) -> str:
    """A setting's parameter name in the API: "adapter_rank"."""
    return place.replace(".", "_")


def shown(info: SettingInfo, value: Any) -> Any:  # noqa: ANN401 - any setting's value
    """A setting's value as its control shows it: several texts stand one per line."""
    return "\n".join(map(str, value)) if info.kind == "texts" else value


def shown_values(config: TrainConfig) -> dict[str, Any]:
    """What each control shows for these settings, by place."""
    values = flat(config)
    return {place: shown(info, values[place]) for place, info in SETTINGS.items()}


def config_of(values: dict[str, Any], preset: str, goal: str) -> TrainConfig:
    """The settings that the controls show.

    Args:
        values: What each control holds, by place.
        preset: Name of the preset they started from.
        goal: That preset's goal.

    Raises:
        InvalidSettings: Naming what is wrong.
    """
    nested: dict[str, Any] = {"preset": preset, "goal": goal, **{section: {} for section in SECTIONS}}
    for place, value in values.items():
        info = SETTINGS[place]
        nested[info.section][info.name] = typed(info, value)
    return validated(nested)


def typed(info: SettingInfo, value: Any) -> Any:  # noqa: ANN401 - any setting's value
    """A control's value as the setting takes it; one of another kind goes as it is, to be refused in words."""
    if not isinstance(value, str | None):
        return value
    if info.kind == "texts":
        return [line.strip() for line in (value or "").splitlines() if line.strip()]
    if info.kind == "text":
        return (value or "").strip()
    return value
