"""The live panel of the Train page: which run is shown, its buttons, its result. What is live comes by the feed."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gradio as gr

from app.desk.in_view import run_in_view
from app.kit.action_errors import reported
from app.kit.component import PRIVATE
from app.kit.text import label, language
from app.live import parts
from app.live.chart import LossChart
from app.live.compare import Compare
from app.live.feed import PATIENCE_SECONDS, Feed, Headline, place
from app.live.moved import Moved
from app.live.result import Result
from app.live.waiting import Waiting
from trainer.contract.home import Home
from trainer.runs.folder import RunFolder
from trainer.runs.process import force_quit
from trainer.runs.queue import Queue
from trainer.runs.workfolder import Request

ASKS: dict[Request, str] = {"stop": "live.stop", "pause": "live.pause", "save": "live.save", "sample": "live.sample"}
CONTINUES = ("stopped", "paused", "failed", "interrupted")


class Panel:
    """The panel's components; `shown` holds the name of the run."""

    def __init__(self, home: Home, feed: Feed) -> None:
        self.home, self.feed = home, feed
        with gr.Column(elem_id="panel", scale=3, min_width=360):
            self.shown = Headline("", elem_id="headline")
            with gr.Row(elem_classes="asks"):
                self.asks = {
                    what: gr.Button(label(key), size="sm", min_width=90, visible=False) for what, key in ASKS.items()
                }
                self.force = gr.Button(label("live.force"), size="sm", variant="stop", visible=False)
                self.resume = gr.Button(label("live.resume"), size="sm", variant="primary", visible=False)
            self.moved = Moved(home)
            place("notices")
            self.waiting = Waiting(home)
            self.result = Result(home)
            LossChart()
            with gr.Row(elem_classes="previews", equal_height=False):
                place("board")
                Compare()
            with gr.Accordion(label("live.log"), open=False, visible=False) as self.fold:
                gr.HTML('<pre class="log" data-part="log" tabindex="0"></pre>', apply_default_css=False)

    @property
    def outputs(self) -> list[Any]:
        """What `frame` may change."""
        buttons = [*self.asks.values(), self.force, self.resume]
        return [*buttons, self.fold, *self.moved.outputs, *self.waiting.outputs, *self.result.outputs]

    def frame(self, name: str, file: str | None, request: gr.Request) -> dict[Any, Any]:
        """Returns updates of buttons, files and queued runs."""
        tongue, watch = language(request), self.feed.watch(name)
        waiting = self.waiting.parts(tongue)
        if watch is None:
            hidden = [*self.asks.values(), self.force, self.resume, self.fold]
            parts_of_none = {**self.moved.parts(None, tongue), **waiting, **self.result.hidden()}
            return {**{part: gr.update(visible=False) for part in hidden}, **parts_of_none}
        status = watch.status
        running, waits = status == "running", watch.run in Queue(self.home).waiting()
        continues = status in CONTINUES and not waits
        overdue = any((watch.run.asked_for(what) or 0) > PATIENCE_SECONDS for what in parts.ENDINGS)
        overdue = overdue or watch.hangs_since(time.time()) is not None
        return {
            **{button: gr.update(visible=running) for button in self.asks.values()},
            self.force: gr.update(visible=running and overdue),
            self.resume: gr.update(visible=continues),
            self.fold: gr.update(visible=True),
            **self.moved.parts(watch.run if continues else None, tongue),
            **waiting,
            **self.result.parts(watch, file, status not in ("running", "reading"), tongue),
        }


def wire(panel: Panel, demo: gr.Blocks) -> None:
    """Connect the panel's buttons and what follows the feed."""
    home, queue = panel.home, Queue(panel.home)
    frame: dict[str, Any] = {
        "fn": panel.frame,
        "inputs": [panel.shown, panel.result.file],
        "outputs": panel.outputs,
        "queue": False,
        "trigger_mode": "always_last",
        **PRIVATE,
    }
    gr.on([panel.shown.submit, panel.result.file.input], **frame)

    def act_on(act: Callable[[RunFolder], object]) -> Callable[[str], None]:
        """Make a button of something done with the shown run."""

        def acting(run: str) -> None:
            """Do it with the run of this name."""
            act(RunFolder.named(home, run))

        return reported(acting)

    for what, button in panel.asks.items():
        button.click(act_on(partial(RunFolder.request, what=what)), panel.shown, None, **PRIVATE)
    panel.force.click(act_on(force_quit), panel.shown, None, **PRIVATE)
    panel.moved.wire(panel.resume, panel.shown)
    panel.result.wire(panel.shown)
    panel.result.told.wire(panel.shown, panel.result.file, frame)
    panel.waiting.wire()

    def attach(request: gr.Request) -> str:
        """The run that the address means."""
        queue.take_over()
        run, project = (str(request.query_params.get(name, "")) for name in ("run", "project"))
        shown = run_in_view(home, run, project)
        return shown.path.name if shown is not None else ""

    demo.load(attach, None, panel.shown, **PRIVATE)
