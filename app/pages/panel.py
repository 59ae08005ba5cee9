"""The live panel of the Train page: which run is shown, its buttons, and a timer that brings what is new."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.components import Component

from app.chart import LossChart, chart_data
from app.monitor import Watches
from app.pages import live
from app.pages.train import TrainForm, problem_card, read, start_run
from app.text import label, language, say
from trainer.contract.errors import TrainerError
from trainer.contract.events import RunView
from trainer.contract.home import Home
from trainer.contract.queue import Queue
from trainer.contract.runs import Request, RunFolder

TICK_SECONDS = 0.5
ASKS: dict[Request, str] = {"stop": "live.stop", "pause": "live.pause", "save": "live.save", "sample": "live.sample"}
ENDED = ("stopped", "paused", "failed", "interrupted")


class Panel:
    """The panel's components and what they show."""

    def __init__(self, home: Home, watches: Watches) -> None:
        self.home, self.watches = home, watches
        with gr.Column(elem_id="panel"):
            self.shown = gr.Textbox(visible="hidden", elem_id="shown-run", label="run")
            self.seen = gr.State(None)
            self.headline = gr.HTML(elem_id="headline")
            with gr.Row():
                self.asks = {what: gr.Button(label(key), visible=False) for what, key in ASKS.items()}
                self.resume = gr.Button(label("live.resume"), variant="primary", visible=False)
            self.notices = gr.HTML()
            self.chart = LossChart()
            self.device = gr.HTML()
            self.board = gr.HTML()
            self.files = gr.HTML()
            self.queue = gr.HTML()
            with gr.Accordion(label("live.log"), open=False):
                self.log = gr.Textbox(show_label=False, lines=12, max_lines=12, autoscroll=True, interactive=False)
        self.timer = gr.Timer(TICK_SECONDS)

    @property
    def outputs(self) -> list[Component | gr.State]:
        """What a tick may change, in the order of `show`."""
        buttons = [*self.asks.values(), self.resume]
        parts = [self.headline, self.notices, self.chart, self.device, self.board, self.files, self.queue, self.log]
        return [self.seen, *parts, *buttons]

    def show(self, name: str, seen: Any, request: gr.Request) -> Any:  # noqa: ANN401 - updates of many kinds
        """All parts of the shown run, or nothing to do if the browser has them."""
        tongue = language(request)
        waiting = [run.path.name for run in Queue(self.home).waiting()]
        try:
            watch = self.watches(RunFolder.find(self.home, name)) if name else None
        except TrainerError:
            watch = None
        if watch is None:
            return gr.skip() if seen == "nothing" else self._nothing(tongue)
        status = watch.status
        now = [name, watch.version, status, waiting]
        if seen == now:
            return gr.skip()
        running = status == "running"
        return [
            now,
            live.headline(watch, tongue),
            live.notices(watch, tongue),
            chart_data(watch.view, watch.steps_total),
            live.device_line(watch, tongue),
            live.board(watch, tongue),
            live.files(watch, tongue),
            live.waiting_list(waiting, tongue),
            live.log_tail(watch.run),
            *(gr.update(visible=running) for _ in self.asks),
            gr.update(visible=status in ENDED and name not in waiting),
        ]

    def _nothing(self, tongue: str) -> list[Any]:
        empty = [f'<p class="quiet">{say(tongue, "live.nothing")}</p>', "", chart_data(RunView(), 0), *[""] * 5]
        return ["nothing", *empty, *(gr.update(visible=False) for _ in range(len(self.asks) + 1))]


def wire(panel: Panel, form: TrainForm, start: gr.Button, problem: gr.HTML, demo: gr.Blocks) -> None:
    """Start, stop, resume, and the timer."""
    home = panel.home
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    tick = {"fn": panel.show, "inputs": [panel.shown, panel.seen], "outputs": panel.outputs, **private, "queue": False}
    panel.timer.tick(**tick)
    panel.shown.change(**tick)

    def begin(preset: str, **named: Any) -> Any:  # noqa: ANN401
        """Train with these settings, at once or after the runs that are before it; gives back the run's name."""
        try:
            return start_run(home, read(preset, named, home)).path.name, ""
        except TrainerError as error:
            return gr.skip(), problem_card(error)

    start.click(begin, inputs_kwargs=form.named(), outputs=[panel.shown, problem], api_name="start")
    for what, button in panel.asks.items():
        button.click(_ask(home, what), panel.shown, None, api_name=what, show_progress="hidden")

    def go_on(run: str) -> str:
        """Resume a run from its last checkpoint, after the runs that are before it; gives back its name."""
        folder = RunFolder.find(home, run)
        Queue(home).start(folder)
        return folder.path.name

    panel.resume.click(go_on, panel.shown, panel.shown, api_name="resume", show_progress="hidden")

    def attach() -> str:
        """The run that is being trained, else the newest."""
        queue = Queue(home)
        queue.advance()  # a trainer that was killed has handed nothing over
        runs = RunFolder.all(home)
        active = queue.active()
        return active.path.name if active else runs[0].path.name if runs else ""

    demo.load(attach, None, panel.shown, **private)


def _ask(home: Home, what: Request) -> Callable[[str], None]:
    def ask(run: str) -> None:
        """Ask the run's trainer for this; it looks once per step."""
        RunFolder.find(home, run).request(what)

    return ask
