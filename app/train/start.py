"""The Train button: from the form to a run in the panel; and from a run back to the form."""

from collections.abc import Callable
from html import escape
from itertools import count
from typing import Any

import gradio as gr

from app.kit.action_errors import carded, reported
from app.kit.cards import good_card
from app.kit.component import PRIVATE, asset
from app.kit.form import whole
from app.kit.text import language, say
from app.live.panel import Panel
from app.train.base_model import earlier
from app.train.form import TrainForm
from app.train.plan import read
from trainer.contract.home import Home
from trainer.contract.settings.config import TrainConfig
from trainer.dataset.captions import first_caption
from trainer.dataset.scan import images_of
from trainer.dataset.views import plan
from trainer.planning.disk import check_space
from trainer.planning.estimate import disk_bytes
from trainer.runs.folder import RunFolder
from trainer.runs.queue import Queue

# Focus goes to the button itself, where a keyboard or a screen reader continues
TO_TRAIN = "() => document.getElementById('start').focus()"


def wire(form: TrainForm, panel: Panel, demo: gr.Blocks) -> None:
    """Connect the form with the live panel."""
    home = form.home

    def shown(act: Callable[..., Any]) -> Callable[..., Any]:
        """Show what goes wrong with the action."""
        return reported(carded(form.problem, act))

    def begin(request: gr.Request, preset: str, **named: Any) -> Any:  # noqa: ANN401 - settings of many kinds
        """Train with these settings, now or after the queued runs."""
        run = start_run(home, read(home, preset, whole(named)))
        if run.process() is None:
            return {form.problem: good_card(say(language(request), "queue.added", name=run.path.name))}
        return {form.problem: "", panel.shown: run.path.name}

    # While the form grows the button moves: a press of it counts nevertheless
    demo.load(None, None, None, js=asset("press.js"), api_visibility="private")
    form.start.click(shown(begin), inputs_kwargs=form.form.named(), outputs=[panel.shown, form.problem], **PRIVATE)

    def again(run: str, request: gr.Request) -> Any:  # noqa: ANN401 - updates of many kinds
        """Fill the form with the shown run's settings."""
        return form.show(RunFolder.named(home, run).config(), language(request))

    filled = [*form.everything, form.problem]
    panel.result.again.click(shown(again), panel.shown, filled, **PRIVATE)

    def continue_from(run: str, file: str, request: gr.Request) -> Any:  # noqa: ANN401 - updates of many kinds
        """Fill the form to continue training from the chosen LoRA file."""
        tongue = language(request)
        config = continuation(home, RunFolder.named(home, run), file)
        ready = say(tongue, "train.go_on", file=escape(file), name=escape(config.output.name))
        return {**form.show(config, tongue), form.problem: good_card(ready)}

    chosen = [panel.shown, panel.result.file]
    panel.result.continue_training.click(shown(continue_from), chosen, filled, **PRIVATE).then(
        None, None, None, js=TO_TRAIN, api_visibility="private"
    )

    def arrive(request: gr.Request) -> Any:  # noqa: ANN401 - an update or nothing
        """The image folder that the address names, as the Dataset page's link does."""
        return request.query_params.get("images") or gr.skip()

    demo.load(arrive, None, form.form.controls["dataset.images"], **PRIVATE)


def continuation(home: Home, run: RunFolder, file: str) -> TrainConfig:
    """Returns the run's settings for another run that continues from one of its LoRA files, under the next free name.

    Raises:
        RunMissing: The file's name leads out of the run's folder.
        InvalidSettings: The run's settings were written by another version.
    """
    config = run.config()
    adapter = config.adapter.model_copy(update={"start_from": str(run.inside(file))})
    output = config.output.model_copy(update={"name": next_name(home, config.output.name)})
    return config.model_copy(update={"adapter": adapter, "output": output})


def next_name(home: Home, name: str) -> str:
    """Returns the name, counted up until none of the newest runs has it: "ana", "ana 2", "ana 3"."""
    stem, _, number = name.rpartition(" ")
    if not (stem and number.isdecimal()):
        stem, number = name, "1"
    used = {config.output.name for config in earlier(home)}
    return next(made for n in count(int(number) + 1) if (made := f"{stem} {n}") not in used)


def start_run(home: Home, config: TrainConfig) -> RunFolder:
    """Start a run with these settings, or put it last in the queue.

    Raises:
        TrainerError: The images cannot be used, or the disk has too little room.
    """
    items, _ = images_of(config.dataset)
    captions = [first_caption(item, config.dataset, config.model.seed) for item in items]
    needed = disk_bytes(config, plan(len(items), config.dataset).steps, captions)
    if needed is not None:
        check_space(home.runs, needed)
    run = RunFolder.create(home, config)
    Queue(home).start(run)
    return run
