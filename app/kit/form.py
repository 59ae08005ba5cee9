"""Settings and what the page shows of them, both ways; the few that matter as Gradio's controls."""

from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.components import Component

from app.kit.rows import SETTINGS, element_id, help_of
from app.kit.text import setting_label
from trainer.contract.schema import SettingInfo
from trainer.contract.settings.config import SECTIONS, TrainConfig, validated
from trainer.contract.toml import flat


def control(place: str, **options: Any) -> Component:  # noqa: ANN401 - whatever the component takes
    """The control of a number or a text, with its help and range; empty until the project's value is known."""
    info = SETTINGS[place]
    shared: dict[str, Any] = {
        "label": setting_label(info),
        "info": help_of(info),
        "value": None,  # the desk fills it in
        "elem_id": element_id(place),
        "interactive": True,
        **options,
    }
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


def config_of(values: Mapping[str, Any], preset: str, goal: str) -> TrainConfig:
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
