"""The Runs page: every run as a card, newest first, and two of them compared."""

from html import escape
from typing import Any

import gradio as gr

from app.kit.component import PRIVATE
from app.kit.text import label, language, say
from app.live.monitor import Watches
from app.runs.cards import card, look, state_of
from app.runs.comparison import comparison
from trainer.contract.home import Home
from trainer.runs.folder import RunFolder

TICK_SECONDS = 2
CARDS = 24  # so many at first, and so many more each time: only of shown runs the logs are read
Stamp = list[Any]  # equal as long as a run looks the same


class Runs:
    """What the page shows of the home's runs."""

    def __init__(self, home: Home, watches: Watches) -> None:
        self.home, self.watches = home, watches
        self._cards: dict[tuple[str, str], tuple[Stamp, str]] = {}  # cards by run and language

    def show(self, count: int, seen: Any, request: gr.Request) -> Any:  # noqa: ANN401 - updates of many kinds
        """Show the newest `count` runs as cards, unless the browser has them."""
        tongue, runs = language(request), RunFolder.all(self.home)
        now = [self._stamp(run) for run in runs[:count]], [run.path.name for run in runs]
        if seen == now:
            return gr.skip()
        same_names = seen is not None and seen[1] == now[1]
        choices = gr.skip() if same_names else gr.update(choices=now[1])
        cards = [self._card(run, stamp, tongue) for run, stamp in zip(runs, now[0], strict=False)]
        return now, card_list(cards, len(runs), tongue), gr.update(visible=count < len(runs)), choices, choices

    def compare(self, first: str, second: str, seen: Any, request: gr.Request) -> Any:  # noqa: ANN401
        """Show the two chosen runs side by side, unless the browser has them."""
        tongue = language(request)
        runs = {run.path.name: run for run in RunFolder.all(self.home)}
        chosen = [name or "" for name in (first, second)]
        now = [chosen, min(len(runs), 2), [self._stamp(runs[name]) for name in chosen if name in runs]]
        if seen == now:
            return gr.skip()
        missing = self._missing(chosen, runs, tongue)
        if missing:
            return now, f'<p class="quiet">{missing}</p>'
        return now, comparison((look(runs[chosen[0]], self.watches), look(runs[chosen[1]], self.watches)), tongue)

    def arrive(self, request: gr.Request) -> tuple[str | None, str | None, Any]:
        """The runs to compare: those of the address `/runs?a=…&b=…`, else the two newest."""
        newest = [run.path.name for run in RunFolder.all(self.home)[:2]]
        first, second = (request.query_params.get(letter) for letter in "ab")
        others = [name for name in newest if name not in (first, second)]
        chosen = [name or (others.pop(0) if others else None) for name in (first, second)]
        return chosen[0], chosen[1], gr.update(selected="compare") if first or second else gr.skip()

    def _missing(self, chosen: list[str], runs: dict[str, RunFolder], tongue: str) -> str:
        """Why these two cannot be compared; empty if they can."""
        if len(runs) < 2:
            return say(tongue, "runs.need_two")
        if not all(chosen):
            return say(tongue, "runs.choose")
        for name in chosen:
            if name not in runs:
                return say(tongue, "runs.gone", name=escape(name))
        return say(tongue, "runs.same_run") if chosen[0] == chosen[1] else ""

    def _stamp(self, run: RunFolder) -> Stamp:
        """What changes with the run's looks."""
        try:
            watch = self.watches(run)
            return [run.path.name, run.config_file.stat().st_mtime_ns, watch.version, state_of(watch)]
        except OSError as error:
            return [run.path.name, str(error)]

    def _card(self, run: RunFolder, stamp: Stamp, tongue: str) -> str:
        """The run's card, made again only if the run has changed since."""
        key = run.path.name, tongue
        known = self._cards.get(key)
        if known is None or known[0] != stamp:
            self._cards[key] = known = (stamp, card(look(run, self.watches), tongue))
        return known[1]


def card_list(cards: list[str], total: int, tongue: str) -> str:
    """The cards as a list, or what to do first."""
    if not cards:
        return f'<p class="quiet">{say(tongue, "runs.empty")} <a href="/">{say(tongue, "runs.begin")}</a></p>'
    rest = say(tongue, "runs.count", shown=len(cards), total=total) if len(cards) < total else ""
    return f'<ul class="run-cards">{"".join(cards)}</ul><p class="quiet">{rest}</p>'


def build(home: Home, watches: Watches, demo: gr.Blocks) -> None:
    """The page; called within its route."""
    gr.Markdown(label("runs.heading"), elem_classes="heading")
    count, seen, compared = gr.State(CARDS), gr.State(None), gr.State(None)
    with gr.Tabs(elem_id="runs-page") as tabs:
        with gr.Tab(label("runs.all"), id="all"):
            cards = gr.HTML(elem_id="runs", padding=False)
            more = gr.Button(label("runs.more"), visible=False)
        with gr.Tab(label("runs.compare"), id="compare"):
            with gr.Row():
                # Runs come and go after the page was built: what is chosen is checked in `compare`
                options: dict[str, Any] = {"allow_custom_value": True, "interactive": True, "min_width": 240}
                first = gr.Dropdown([], label=label("runs.first"), elem_id="run-a", **options)
                second = gr.Dropdown([], label=label("runs.second"), elem_id="run-b", **options)
            pair = gr.HTML(elem_id="run-comparison", padding=False)
    page, timer = Runs(home, watches), gr.Timer(TICK_SECONDS)

    def show_more(count: int) -> int:
        """How many cards to show from now on."""
        return count + CARDS

    private = {**PRIVATE, "queue": False}
    show = {"fn": page.show, "inputs": [count, seen], "outputs": [seen, cards, more, first, second], **private}
    compare = {"fn": page.compare, "inputs": [first, second, compared], "outputs": [compared, pair], **private}
    demo.load(**show).then(page.arrive, None, [first, second, tabs], **private)
    more.click(show_more, count, count, **private).then(**show)
    timer.tick(**show)
    gr.on([timer.tick, first.change, second.change], **compare)
