"""The question where a run's images, base model or VAE are now, when it is to be continued and they are not there."""

from typing import Any

import gradio as gr
from gradio.components import Component

from app.kit.action_errors import reported
from app.kit.component import PRIVATE
from app.kit.text import label, say
from trainer.contract.errors import TrainerError
from trainer.contract.home import Home
from trainer.planning.moving import move_inputs
from trainer.runs.folder import RunFolder
from trainer.runs.moved import missing
from trainer.runs.queue import Queue

PLACES = ("dataset.images", "model.base_model", "model.vae")
FURTHER = ("dataset.captions", "dataset.concepts")  # asked for one at a time


class Moved:
    """One field for each of `PLACES` that is not there, and one for whatever else is not."""

    def __init__(self, home: Home) -> None:
        self.home = home
        with gr.Column(visible=False, elem_id="moved", elem_classes="step") as self.section:
            self.question = gr.Markdown(label("moved.question"))
            self.fields = {
                place: gr.Textbox(label=label(f"moved.{place}"), visible=False, max_lines=1)
                for place in (*PLACES, "further")
            }

    @property
    def outputs(self) -> list[Any]:
        """What may change."""
        return [self.section, *self.fields.values()]

    def parts(self, run: RunFolder | None, tongue: str) -> dict[Any, Any]:
        """The fields that a run needs before it can be continued, each with the place where it was."""
        absent = self._missing(run)
        updates: dict[Any, Any] = {self.section: gr.update(visible=bool(absent))}
        for place, field in self.fields.items():
            info = say(tongue, "moved.was", path=absent[place]) if place in absent else ""
            updates[field] = gr.update(visible=place in absent, info=info)
        return updates

    def wire(self, button: gr.Button, shown: Component) -> None:
        """Let the button continue the shown run with what is in the fields."""
        button.click(reported(self._resume), [shown, *self.fields.values()], None, **PRIVATE)

    def _missing(self, run: RunFolder | None) -> dict[str, str]:
        """What is not there, by field; of several further ones the first."""
        if run is None:
            return {}
        try:
            absent = missing(run.config())
        except TrainerError:  # of settings that cannot be read: it is said when it is to be continued
            return {}
        named: dict[str, str] = {}
        for place, path in absent:
            named.setdefault("further" if place in FURTHER else place, path)
        return named

    def _resume(self, name: str, *typed: str) -> None:
        run = RunFolder.named(self.home, name)
        absent = self._missing(run)
        new = {place: path for place, path in zip(self.fields, typed, strict=True) if place in absent and path.strip()}
        further = new.pop("further", None)
        move_inputs(run, new, [(absent["further"], further)] if further else [])
        Queue(self.home).start(run)
