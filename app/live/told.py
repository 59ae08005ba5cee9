"""What a LoRA file tells whoever gets it, before it is handed over; and the choice of tags that it should not tell."""

from html import escape
from typing import Any

import gradio as gr
from gradio.components import Component

from app.kit.action_errors import reported
from app.kit.cards import facts_list
from app.kit.component import PRIVATE
from app.kit.text import label, say
from trainer.contract.errors import TrainerError
from trainer.contract.home import Home
from trainer.runs.folder import RunFolder
from trainer.runs.told import Told, for_others, strike, told

# What other parts of the page call it
LABELS = {"base_model": "setting.model.base_model", "vae": "setting.model.vae", "title": "setting.output.name"}


class ToldByFile:
    """The section's components."""

    def __init__(self, home: Home) -> None:
        self.home = home
        with gr.Accordion(label("told.heading"), open=False, elem_id="told") as self.section:
            self.facts = gr.HTML(apply_default_css=False)
            self.struck = gr.Dropdown(
                [],
                multiselect=True,
                label=label("told.strike"),
                info=label("told.strike_info"),
                interactive=True,
                elem_id="struck",
            )

    @property
    def outputs(self) -> list[Any]:
        """What may change."""
        return [self.section, self.facts, self.struck]

    def parts(self, run: RunFolder, file: str, tongue: str) -> dict[Any, Any]:
        """What the file tells, and which of its tags are struck."""
        try:
            every, kept = told(run.inside(file)), told(for_others(run, file))
        except (TrainerError, OSError):  # moved or deleted by somebody
            return {self.section: gr.update(visible=False)}
        struck = [tag for tag in every.tags if tag not in kept.tags]
        choices = [(f"{tag} ({times})", tag) for tag, times in every.tags.items()]
        return {
            self.section: gr.update(visible=True),
            self.facts: facts(kept, tongue),
            self.struck: gr.update(choices=choices, value=struck, visible=bool(choices)),
        }

    def wire(self, shown: Component, file: Component, then: dict[str, Any]) -> None:
        """Let a change of the choice make the version to hand over, and show it by the event `then`."""
        self.struck.input(reported(self._strike), [shown, file, self.struck], None, **PRIVATE).then(**then)

    def _strike(self, run: str, file: str, struck: list[str] | None) -> None:
        strike(RunFolder.named(self.home, run), file, struck or [])


def facts(said: Told, tongue: str) -> str:
    """Names and tags as a list; the settings, which name nothing, in one sentence."""
    rows = [(say(tongue, LABELS.get(name, f"told.{name}")), escape(text)) for name, text in said.names.items()]
    tags = ", ".join(f"{escape(tag)} ({times})" for tag, times in said.tags.items())
    rows.append((say(tongue, "told.tags"), tags or say(tongue, "told.no_tags")))
    return f'{facts_list(rows)}<p class="quiet">{say(tongue, "told.settings")}</p>'
