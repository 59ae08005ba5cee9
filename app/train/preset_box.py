"""The user's own presets: save, rename, delete, import, download."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from app.kit.action_errors import carded
from app.kit.cards import good_card
from app.kit.component import PRIVATE
from app.kit.form import whole
from app.kit.text import label, language, say
from app.kit.wording import html_of
from app.train.plan import settings_of
from app.train.presets import EXAMPLE, preset_choices, preset_config, preset_for
from trainer.contract.home import Home
from trainer.contract.presets import delete_preset, import_preset, list_presets, rename_preset, save_preset


class PresetBox:
    """The fold with its fields and buttons, and what these do.

    Args:
        home: Holds the user's presets.
        preset: The form's list of presets.
        named: All controls of the form by their API names.
        everything: All that `show` updates.
        show: Updates that fill the form with settings.
    """

    def __init__(
        self,
        home: Home,
        preset: gr.Dropdown,
        named: Mapping[str, Any],
        everything: Sequence[Any],
        show: Callable[..., dict[Any, Any]],
    ) -> None:
        self.home, self.preset, self.show = home, preset, show
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
                self.upload = gr.UploadButton(words, file_types=[".toml"], size="sm", min_width=90)
            self.said, self.listed = gr.HTML(apply_default_css=False), gr.HTML(apply_default_css=False)
        self._wire({"name": self.name, "intent": self.intent, **named}, [self.said, self.listed, *everything])

    def _wire(self, asked: dict[str, Any], outputs: list[Any]) -> None:
        chosen: dict[str, Any] = {"preset": self.preset}
        private = {"outputs": outputs, **PRIVATE}
        self.save.click(carded(self.said, self._save), inputs_kwargs=asked, **private)
        self.rename.click(carded(self.said, self._rename), inputs_kwargs={**chosen, "name": self.name}, **private)
        self.delete.click(carded(self.said, self._delete), inputs_kwargs=chosen, **private)
        self.upload.upload(carded(self.said, self._import), inputs_kwargs={"file": self.upload}, **private)
        self.fold.expand(self._list, None, self.listed, **PRIVATE)

    def _save(self, request: gr.Request, preset: str, name: str, intent: str, **named: Any) -> Any:  # noqa: ANN401
        """Save what the form holds under this name; only the preset that is being changed is replaced."""
        requested, values = (name or "").strip(), whole(named)
        config = settings_of(self.home, preset, values)
        made = save_preset(self.home.presets, requested, config, intent or "", replace=requested == preset)
        kept = {key: values[key] for key in ("dataset_images", "output_name") if values[key]}
        return self._shown(made.name, "preset.saved", language(request), **kept)

    def _rename(self, request: gr.Request, preset: str, name: str) -> Any:  # noqa: ANN401
        made = rename_preset(self.home.presets, preset, (name or "").strip())
        return self._done(made.name, "preset.renamed", language(request)) | self._chosen(made.name)

    def _delete(self, request: gr.Request, preset: str) -> Any:  # noqa: ANN401
        """Delete the chosen preset; the form keeps its values."""
        goal = preset_config(self.home, preset).goal
        delete_preset(self.home.presets, preset)
        usual = preset_for(self.home, goal, EXAMPLE)
        return self._done(preset, "preset.deleted", language(request)) | self._chosen(usual)

    def _import(self, request: gr.Request, file: str) -> Any:  # noqa: ANN401
        made = import_preset(self.home.presets, Path(file))
        return self._shown(made.name, "preset.imported", language(request))

    def _list(self, request: gr.Request) -> str:
        return own_list(self.home, language(request))

    def _shown(self, preset: str, key: str, tongue: str, **kept: Any) -> dict[Any, Any]:  # noqa: ANN401
        config = preset_config(self.home, preset)
        return self._done(preset, key, tongue) | self.show(config, tongue, **kept)

    def _chosen(self, preset: str) -> dict[Any, Any]:
        return {self.preset: gr.update(choices=preset_choices(self.home), value=preset)}

    def _done(self, preset: str, key: str, tongue: str) -> dict[Any, Any]:
        return {
            self.said: good_card(say(tongue, key, name=escape(preset))),
            self.listed: own_list(self.home, tongue),
        }


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
