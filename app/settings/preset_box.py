"""The user's own presets: save, rename, delete, import, download."""

from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from app.desk.changes import made, with_preset
from app.desk.element import RELOAD, DeskElement
from app.desk.presets import EXAMPLE, preset_for
from app.desk.state import Desk
from app.kit.action_errors import carded, named_as_uploaded
from app.kit.cards import good_card
from app.kit.component import PRIVATE
from app.kit.text import label, language, say
from app.kit.wording import html_of
from trainer.contract.home import Home
from trainer.contract.presets import delete_preset, import_preset, list_presets, rename_preset, save_preset
from trainer.projects.project import Project

# TOML is read; of the settings of other programs it is said what they are
SETTINGS_FILES = [".toml", ".json", ".yaml", ".yml"]
# What was typed is kept first, and the project may have got its name by then
KEPT = "async (project, ...others) => [await window.atelier.flush(), ...others]"


class PresetBox:
    """The fold with its fields and buttons."""

    def __init__(self, home: Home) -> None:
        self.home = home
        with gr.Accordion(label("preset.heading"), open=False) as self.fold:
            gr.Markdown(label("preset.help"))
            with gr.Row(elem_classes="fields"):
                self.name = gr.Textbox(label=label("preset.name"))
                self.intent = gr.Textbox(label=label("preset.intent"))
            with gr.Row(elem_classes="asks"):
                self.save = gr.Button(label("preset.save"), size="sm", min_width=90)
                self.rename = gr.Button(label("preset.rename"), size="sm", min_width=90)
                self.delete = gr.Button(label("preset.delete"), size="sm", min_width=90)
                words: Any = label("preset.import")  # its type says str, but it is translated like every button's
                self.upload = gr.UploadButton(words, file_types=SETTINGS_FILES, size="sm", min_width=90)
            self.said, self.listed = gr.HTML(apply_default_css=False), gr.HTML(apply_default_css=False)

    def wire(self, desk: DeskElement) -> None:
        """What the buttons do with the desk's project."""
        outputs = [desk, self.said, self.listed]
        done = [
            self.save.click(carded(self.said, self._save), [desk, self.name, self.intent], outputs, js=KEPT, **PRIVATE),
            self.rename.click(carded(self.said, self._rename), [desk, self.name], outputs, js=KEPT, **PRIVATE),
            self.delete.click(carded(self.said, self._delete), desk, outputs, js=KEPT, **PRIVATE),
            self.upload.upload(carded(self.said, self._import), [desk, self.upload], outputs, js=KEPT, **PRIVATE),
        ]
        for event in done:
            event.then(None, None, None, js=RELOAD, api_visibility="private")
        self.fold.expand(self._list, None, self.listed, **PRIVATE)

    def _desk(self, project: str) -> Desk:
        return Desk.of(self.home, Project.named(self.home, project) if project else None)

    def _save(self, project: str, name: str, intent: str, request: gr.Request) -> Any:  # noqa: ANN401
        """Save what the project says under this name; only the preset that is being changed is replaced."""
        requested, desk = (name or "").strip(), self._desk(project)
        replace = requested == desk.entered.preset
        preset = save_preset(self.home.presets, requested, desk.config_of_preset(), intent or "", replace=replace)
        return self._chosen(desk, preset.name, "preset.saved", request)

    def _rename(self, project: str, name: str, request: gr.Request) -> Any:  # noqa: ANN401
        desk = self._desk(project)
        preset = rename_preset(self.home.presets, desk.entered.preset, (name or "").strip())
        project = made(self.home, desk.project, {"preset": preset.name}).name
        return self._done(project, preset.name, "preset.renamed", request)

    def _delete(self, project: str, request: gr.Request) -> Any:  # noqa: ANN401
        """Delete the chosen preset; the settings keep their values."""
        desk = self._desk(project)
        preset, goal, values = desk.entered.preset, desk.goal, desk.kept()
        delete_preset(self.home.presets, preset)
        usual = preset_for(self.home, goal, EXAMPLE)
        return self._done(
            made(self.home, desk.project, {**values, "preset": usual}).name, preset, "preset.deleted", request
        )

    def _import(self, project: str, file: str, request: gr.Request) -> Any:  # noqa: ANN401
        with named_as_uploaded(Path(file)):
            preset = import_preset(self.home.presets, Path(file))
        return self._chosen(self._desk(project), preset.name, "preset.imported", request)

    def _list(self, request: gr.Request) -> str:
        return own_list(self.home, language(request))

    def _chosen(self, desk: Desk, preset: str, key: str, request: gr.Request) -> Any:  # noqa: ANN401
        project = made(self.home, desk.project, with_preset(desk, preset))
        return self._done(project.name, preset, key, request)

    def _done(self, project: str, preset: str, key: str, request: gr.Request) -> Any:  # noqa: ANN401
        tongue = language(request)
        return project, good_card(say(tongue, key, name=escape(preset))), own_list(self.home, tongue)


def own_list(home: Home, tongue: str) -> str:
    """Returns the user's presets, each to be downloaded as a file."""
    usable, broken = list_presets(home.presets)
    rows = [
        f'<li><a href="/atelier/preset/{quote(one.name)}.toml" download>{escape(one.name)}</a> '
        f'<span class="quiet">{escape(one.intent)}</span></li>'
        for one in usable
    ]
    rows += [f'<li class="quiet">⚠ {html_of(error.message, tongue)}</li>' for error in broken]
    return f'<p>{say(tongue, "preset.download")}</p><ul class="files">{"".join(rows)}</ul>' if rows else ""
