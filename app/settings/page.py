"""The room Settings: the four that matter, then everything, found by anyone's word."""

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from app.desk.element import build, place
from app.kit.action_errors import carded, named_as_uploaded, reported
from app.kit.component import PRIVATE, Leads
from app.kit.form import control
from app.kit.text import label
from app.settings.preset_box import SETTINGS_FILES, PresetBox
from trainer.contract.home import Home
from trainer.projects.transfer import import_project

VIEWS = "dataset.views"
SHOW_FAILED = """() => {  // again once it has its size
    const show = () => document.querySelector('#import-failed .failure')?.scrollIntoView({ block: 'nearest' });
    for (const wait of [0, 200, 600]) setTimeout(show, wait);
}"""
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
            words: Any = label("project.import")  # its type says str, but it is translated like every button's
            upload = gr.UploadButton(words, file_types=SETTINGS_FILES, size="sm", min_width=90)
            failed = gr.HTML(apply_default_css=False, elem_id="import-failed")
    leads = Leads("", elem_id="leads-import")
    box.wire(build(home))

    def take(file: str) -> Any:  # noqa: ANN401 - updates
        """Make a project of a file, and go there."""
        with named_as_uploaded(Path(file)):
            project = import_project(home, Path(file))
        return {leads: f"/settings?{urlencode({'project': project.name})}", failed: ""}

    taken = upload.upload(reported(carded(failed, take)), upload, [leads, failed], **PRIVATE)
    taken.then(None, None, None, js=SHOW_FAILED, api_visibility="private")
