"""Settings as controls: every setting the engine declares gets one, so that adding a setting needs no edit here."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from app.text import setting_label
from trainer.contract.presets import flat
from trainer.contract.schema import SettingInfo, all_settings
from trainer.contract.settings import SECTIONS, TrainConfig, validated

SETTINGS = {info.place: info for info in all_settings()}


def control(place: str, **options: Any) -> Component:  # noqa: ANN401 - whatever the component takes
    """The control of one setting, with its help and range."""
    info = SETTINGS[place]
    shared: dict[str, Any] = {
        "label": setting_label(info),
        "info": " ".join(filter(None, [info.help, f"({info.range_text})" if info.range_text else ""])),
        "value": shown(info, info.default),
        "elem_id": element_id(place),
        "interactive": True,
        **options,
    }
    match info.kind:
        case "switch":
            return gr.Checkbox(**shared)
        case "choice":
            return gr.Dropdown(choices=list(info.choices), **shared)
        case "whole" | "number":
            # Bounds are left to the settings' own check, whose message names value and range
            return gr.Number(precision=0 if info.kind == "whole" else None, **shared)
        case "texts":
            return gr.Textbox(lines=3, **shared)
        case _:
            return gr.Textbox(**shared)


def element_id(place: str) -> str:
    """The HTML id of a setting's control."""
    return "setting-" + place.replace(".", "-").replace("_", "-")


def shown(info: SettingInfo, value: Any) -> Any:  # noqa: ANN401 - any setting's value
    """A setting's value as its control shows it: several texts stand one per line."""
    return "\n".join(value) if info.kind == "texts" else value


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
        nested[info.section][info.name] = _typed(info, value)
    return validated(nested)


def _typed(info: SettingInfo, value: Any) -> Any:  # noqa: ANN401 - any setting's value
    if info.kind == "texts":
        return [line.strip() for line in (value or "").splitlines() if line.strip()]
    if info.kind == "text":
        return (value or "").strip()
    return value
