"""Settings as controls: every setting the engine declares gets one, so that adding a setting needs no edit here."""

from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component

from app.kit.text import label, setting_label
from trainer.contract.schema import SettingInfo, all_settings
from trainer.contract.settings.config import SECTIONS, TrainConfig, validated
from trainer.contract.toml import flat

SETTINGS = {info.place: info for info in all_settings()}
SEARCH = """(wanted) => {
    const words = wanted.trim().toLowerCase();
    for (const row of document.querySelectorAll('.advanced .setting-row'))
        row.style.display = row.textContent.toLowerCase().includes(words) ? '' : 'none';
    for (const one of document.querySelectorAll('.advanced .section'))
        one.style.display = [...one.querySelectorAll('.setting-row')].some((row) => !row.style.display) ? '' : 'none';
}"""


@dataclass
class Form:
    """The page's inputs: one control per setting, and beside each a button that is there while it differs."""

    preset: gr.Dropdown
    usual: dict[str, Any]  # what the controls show at first, by place
    controls: dict[str, Component] = field(default_factory=dict)
    resets: dict[str, gr.Button] = field(default_factory=dict)

    def add(self, place: str, **options: Any) -> None:  # noqa: ANN401 - whatever the component takes
        """One setting with its reset button, in the present layout."""
        with gr.Column(elem_classes="setting-row", min_width=160):
            self.controls[place] = control(place, **{"value": self.usual[place], **options})
            self.resets[place] = gr.Button("", size="sm", visible=False, elem_classes="reset")

    def named(self) -> dict[str, Block]:
        """The inputs by the names that the API gives them."""
        return {"preset": self.preset, **{api_name(place): one for place, one in self.controls.items()}}

    def filled(self, config: TrainConfig, **kept: Any) -> dict[Block, Any]:  # noqa: ANN401 - settings' values
        """What every control shows for these settings; `kept` by API name stays as it is."""
        return {self.controls[place]: kept.get(api_name(place), value) for place, value in shown_values(config).items()}


def advanced(form: Form, elsewhere: tuple[str, ...]) -> None:
    """Every setting that is not `elsewhere`, by section, with a search field."""
    with gr.Accordion(label("train.advanced"), open=False, elem_classes="advanced"):
        search = gr.Textbox(label=label("train.search"), elem_id="search")
        for section in SECTIONS:
            places = [place for place, info in SETTINGS.items() if info.section == section and place not in elsewhere]
            with gr.Column(elem_classes="section"):
                gr.Markdown(label(f"section.{section}"), elem_classes="section-name")
                with gr.Row(elem_classes="fields"):
                    for place in places:
                        form.add(place)
        search.change(None, search, None, js=SEARCH, api_visibility="private")


def control(place: str, **options: Any) -> Component:  # noqa: ANN401 - whatever the component takes
    """The control of one setting, with its help and range."""
    info = SETTINGS[place]
    shared: dict[str, Any] = {
        "label": setting_label(info),
        "info": help_of(info),
        "value": shown(info, info.default),
        "elem_id": element_id(place),
        "interactive": True,
        **options,
    }
    match info.kind:
        case "text" if "choices" in options:
            return gr.Dropdown(allow_custom_value=True, **shared)
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


def help_of(info: SettingInfo) -> str:
    """A setting's help and range."""
    return " ".join(filter(None, [info.help, f"({info.range_text})" if info.range_text else ""]))


def api_name(place: str) -> str:
    """A setting's parameter name in the API: "adapter_rank"."""
    return place.replace(".", "_")


def element_id(place: str) -> str:
    """The HTML id of a setting's control."""
    return "setting-" + place.replace(".", "-").replace("_", "-")


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
