"""The queued runs and their order."""

from functools import partial
from typing import Any

import gradio as gr

from app.kit.action_errors import reported
from app.kit.component import PRIVATE
from app.kit.text import label, say
from trainer.contract.home import Home
from trainer.runs.queue import Queue


class Waiting:
    """The queue's components; hidden while nobody waits."""

    def __init__(self, home: Home) -> None:
        self.queue = Queue(home)
        with gr.Group(visible=False, elem_id="waiting") as self.section:
            self.list = gr.Radio([], label=label("queue.waiting"), info=label("queue.info"), interactive=True)
            with gr.Row():
                self.earlier = gr.Button(label("queue.earlier"), size="sm", min_width=90)
                self.later = gr.Button(label("queue.later"), size="sm", min_width=90)
                self.remove = gr.Button(label("queue.remove"), size="sm", min_width=90)

    @property
    def outputs(self) -> list[Any]:
        """What may change."""
        return [self.section, self.list]

    def parts(self, tongue: str) -> dict[Any, Any]:
        """The list as it is now."""
        names = [run.path.name for run in self.queue.waiting()]
        choices = [(say(tongue, "queue.place", place=place, name=name), name) for place, name in enumerate(names, 1)]
        return {self.section: gr.update(visible=bool(names)), self.list: gr.update(choices=choices)}

    def wire(self) -> None:
        """The buttons; the feed notices what they did."""
        for button, by in ((self.earlier, -1), (self.later, 1)):
            button.click(reported(partial(self._move, by)), self.list, None, **PRIVATE)
        self.remove.click(reported(self._remove), self.list, None, **PRIVATE)

    def _move(self, by: int, name: str | None) -> None:
        """Move the chosen run; nothing happens if it has just been started."""
        runs = self.queue.waiting()
        place = next((place for place, run in enumerate(runs) if run.path.name == name), None)
        if place is not None:
            self.queue.move(runs[place], place + by)

    def _remove(self, name: str | None) -> None:
        for run in self.queue.waiting():
            if run.path.name == name:
                self.queue.remove(run)
