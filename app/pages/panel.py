"""The live panel of the Train page: which run is shown, its buttons, its result, and a timer that brings news."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.chart import ChartLabels, LossChart, chart_data
from app.compare import Compare, compare_data
from app.monitor import Watch, Watches
from app.pages import live
from app.pages.result import Result
from app.pages.waiting import Waiting
from app.text import label, language, say, words
from trainer.contract.errors import TrainerError
from trainer.contract.home import Home
from trainer.contract.process import force_quit, reap
from trainer.contract.queue import Queue
from trainer.contract.runs import Request, RunFolder

TICK_SECONDS = 1.0  # what is written is shown within 1.5 s; twenty open tabs must not slow a training on two cores
ASKS: dict[Request, str] = {"stop": "live.stop", "pause": "live.pause", "save": "live.save", "sample": "live.sample"}
CONTINUES = ("stopped", "paused", "failed", "interrupted")
PATIENCE_SECONDS = 60  # after which a trainer that does not stop may be ended by force
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


class Panel:
    """The panel's components and what they show."""

    def __init__(self, home: Home, watches: Watches) -> None:
        self.home, self.watches = home, watches
        with gr.Column(elem_id="panel", scale=3, min_width=360):
            self.shown = gr.Textbox(visible="hidden", elem_id="shown-run", label="run")
            self.seen = gr.State({})
            self.headline = gr.HTML(elem_id="headline", apply_default_css=False)
            with gr.Row(elem_classes="asks"):
                self.asks = {
                    what: gr.Button(label(key), size="sm", min_width=90, visible=False) for what, key in ASKS.items()
                }
                self.force = gr.Button(label("live.force"), size="sm", variant="stop", visible=False)
                self.resume = gr.Button(label("live.resume"), size="sm", variant="primary", visible=False)
            self.notices = gr.HTML(apply_default_css=False)
            self.waiting = Waiting(home)
            self.result = Result(home)
            self.chart = LossChart(visible=False)
            with gr.Row(elem_classes="previews", equal_height=False):
                self.board = gr.HTML(apply_default_css=False, min_width=260, scale=3)
                self.compare = Compare(visible=False)
            with gr.Accordion(label("live.log"), open=False, visible=False) as self.fold:
                self.log = gr.Textbox(
                    label=label("live.log"), show_label=False, lines=12, max_lines=12, interactive=False
                )
        self.timer = gr.Timer(TICK_SECONDS)

    @property
    def outputs(self) -> list[Any]:
        """What a tick may change."""
        shown = [self.seen, self.headline, self.force, self.resume, self.notices, self.chart, self.board, self.compare]
        return [*shown, *self.asks.values(), self.fold, self.log, *self.waiting.outputs, *self.result.outputs]

    def show(self, name: str, file: str | None, seen: dict[str, Any], request: gr.Request) -> Any:  # noqa: ANN401
        """The parts of the shown run that changed since `seen`, or nothing to do."""
        reap()
        watch = self._watch(name)
        now = self._state(name, file, watch)
        if seen.get("now") == now:
            return gr.skip()
        tongue = language(request)
        parts = self._nothing(tongue) if watch is None else self._parts(watch, file, seen, tongue)
        return changed(parts, seen, {"now": now}, self.seen)

    def _watch(self, name: str) -> Watch | None:
        try:
            return self.watches(RunFolder.find(self.home, name)) if name else None
        except TrainerError:
            return None

    def _state(self, name: str, file: str | None, watch: Watch | None) -> list[Any]:
        """All that decides what the panel shows, cheap to find out."""
        queue = [run.path.name for run in Queue(self.home).waiting()]
        if watch is None:
            return ["", queue]
        asked = [watch.run.asked_for(what) for what in live.ENDINGS]
        pressing = [seconds is not None for seconds in asked]
        overdue = any(seconds is not None and seconds > PATIENCE_SECONDS for seconds in asked)
        folder = watch.run.path.stat().st_mtime_ns  # a strength strip appears without an event
        drawing = self.result.drawing(watch.run, file)
        return [name, file, watch.version, watch.status, queue, pressing, overdue, folder, drawing]

    def _parts(self, watch: Watch, file: str | None, seen: dict[str, Any], tongue: str) -> dict[Any, Any]:
        name, status = watch.run.path.name, watch.status
        running, waits = status == "running", watch.run in Queue(self.home).waiting()
        overdue = any((watch.run.asked_for(what) or 0) > PATIENCE_SECONDS for what in live.ENDINGS)
        compared = compare_data(watch, tongue)
        return {
            self.headline: live.headline(watch, tongue),
            **{button: gr.update(visible=running) for button in self.asks.values()},
            self.force: gr.update(visible=running and overdue),
            self.resume: gr.update(visible=status in CONTINUES and not waits),
            self.notices: live.notices(watch, tongue),
            self.chart: gr.update(
                value=chart_data(watch.view, watch.steps_total, chart_labels(tongue)), visible=bool(watch.view.steps)
            ),
            self.board: live.board(watch, tongue),
            self.compare: gr.update(value=compared, visible=bool(compared["rows"])),
            self.fold: gr.update(visible=True),
            self.log: live.log_tail(watch.run),
            **self.waiting.parts(tongue),
            **self.result.parts(watch, file if (seen.get("now") or [None])[0] == name else None, not running, tongue),
        }

    def _nothing(self, tongue: str) -> dict[Any, Any]:
        hidden = [*self.asks.values(), self.force, self.resume, self.chart, self.compare, self.fold]
        return {
            self.headline: f'<div class="empty">{say(tongue, "live.nothing")}</div>',
            **{part: gr.update(visible=False) for part in hidden},
            **{part: "" for part in (self.notices, self.board, self.log)},
            **self.waiting.parts(tongue),
            **self.result.hidden(),
        }


def changed(parts: dict[Any, Any], seen: dict[str, Any], now: dict[str, Any], state: gr.State) -> dict[Any, Any]:
    """Those parts that the browser does not have, and what it has then: an untouched element keeps its place."""
    marks = {str(part._id): hash(repr(value)) for part, value in parts.items()}
    had = seen.get("marks", {})
    return {
        state: {**now, "marks": marks},
        **{part: value for part, value in parts.items() if had.get(str(part._id)) != marks[str(part._id)]},
    }


def chart_labels(tongue: str) -> ChartLabels:
    """The chart's words in this language."""
    return ChartLabels(**words(tongue, "chart."))


def wire(panel: Panel, demo: gr.Blocks) -> None:
    """Stop, pause, continue, and the timer."""
    home, queue = panel.home, Queue(panel.home)
    tick: dict[str, Any] = {
        "fn": panel.show,
        "inputs": [panel.shown, panel.result.file, panel.seen],
        "outputs": panel.outputs,
        **PRIVATE,
    }
    panel.timer.tick(**tick, queue=False)
    gr.on([panel.shown.change, panel.result.file.input], **tick, queue=False)
    for what, button in panel.asks.items():
        button.click(_asking(home, what), panel.shown, None, **PRIVATE).then(**tick, queue=False)

    def end_now(run: str) -> None:
        """End a trainer that does not answer."""
        force_quit(RunFolder.find(home, run))

    panel.force.click(end_now, panel.shown, None, **PRIVATE).then(**tick, queue=False)

    def go_on(run: str) -> None:
        """Continue from the run's last checkpoint, after the runs that are before it."""
        queue.start(RunFolder.find(home, run))

    panel.resume.click(go_on, panel.shown, None, **PRIVATE).then(**tick, queue=False)
    panel.result.wire(panel.shown)
    panel.waiting.wire(tick)

    def attach(request: gr.Request) -> str:
        """The run that the address names, else the one that is being trained, else the newest."""
        queue.advance()  # a trainer that was killed has handed nothing over
        runs = RunFolder.all(home)
        wished = str(request.query_params.get("run", ""))
        if any(run.path.name == wished for run in runs):
            return wished
        active = queue.active()
        return active.path.name if active else runs[0].path.name if runs else ""

    demo.load(attach, None, panel.shown, **PRIVATE).then(**tick, queue=False)


def _asking(home: Home, what: Request) -> Any:  # noqa: ANN401 - a callback
    def ask(run: str) -> None:
        """Ask the run's trainer for this; it looks once per step."""
        RunFolder.find(home, run).request(what)

    return ask
