"""The room Settings: the four that matter, then everything, found by anyone's word."""

import gradio as gr

from app.desk.element import build, place
from app.kit.form import control
from app.kit.text import label
from app.settings.preset_box import PresetBox
from trainer.contract.home import Home

VIEWS = "dataset.views"
FOUR = ("adapter.rank", "adapter.alpha", "optimizer.learning_rate", VIEWS)


def page(home: Home) -> None:
    """The page's components."""
    with gr.Row(elem_id="settings-room", equal_height=False):
        with gr.Column(elem_id="settings-side", scale=1, min_width=240):
            place("search")
            place("nav")
        with gr.Column(elem_id="settings-main", scale=3, min_width=300):
            place("preset")
            gr.Markdown(label("settings.four"), elem_classes="heading")
            with gr.Row(elem_classes="four"):
                for setting in FOUR:
                    with gr.Column(elem_classes=["card", "setting-row"], min_width=240):
                        control(setting)
                        if setting == VIEWS:
                            place("epochs")
            with gr.Row(elem_classes=["card", "strength"]):
                gr.Checkbox(
                    True,
                    label=label("train.keep_strength"),
                    elem_id="keep-strength",
                    container=False,
                    interactive=True,  # nobody but the desk listens to it
                )
                place("strength")
            place("sections")
            box = PresetBox(home)
        with gr.Column(elem_id="settings-aside", scale=1, min_width=260):
            place("curve")
            place("text")
    box.wire(build(home))
