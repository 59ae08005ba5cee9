"""The page's actions for programs: named endpoints with named parameters, used through `gradio_client`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.events import api

from app.kit.action_errors import reported
from app.kit.form import SETTINGS, api_name, shown
from app.kit.wording import on_page
from app.live.monitor import Watch, Watches
from app.train.plan import read
from app.train.presets import EXAMPLE, preset_config
from app.train.start import start_run
from trainer.contract.events import RunFailed
from trainer.contract.home import Home
from trainer.contract.toml import RENAMED, flat
from trainer.runs.folder import RunFolder
from trainer.runs.queue import Queue
from trainer.runs.workfolder import Request

KINDS: dict[str, Any] = {"switch": bool, "whole": int, "number": float}
ACTIONS: dict[str, Request] = {"stop": "stop", "pause": "pause", "save": "save", "sample": "sample"}


def register(home: Home, watches: Watches) -> None:
    """All endpoints, inside the Blocks."""
    api(_endpoint(_start(home)), api_name="start")
    for name, what in ACTIONS.items():
        api(_endpoint(_asking(home, what)), api_name=name)

    def resume(run: str) -> str:
        """Continue a run from its last checkpoint, after the runs that are before it; gives back its name."""
        folder = RunFolder.named(home, run)
        Queue(home).start(folder)
        return folder.path.name

    def status(run: str = "") -> dict[str, Any]:
        """A run's state, step, loss, time left and files; without a name, the newest run's."""
        newest = RunFolder.all(home)[:1]
        return state_of(watches(RunFolder.named(home, run) if run or not newest else newest[0]))

    def runs() -> list[dict[str, Any]]:
        """All runs, newest first, as `status` tells them."""
        return [state_of(watches(folder)) for folder in RunFolder.all(home)]

    def queue() -> list[str]:
        """The names of the runs that wait, in their order."""
        return [folder.path.name for folder in Queue(home).waiting()]

    def queue_move(run: str, place: int) -> list[str]:
        """Put a waiting run at this place, 0 being next; gives back the queue."""
        Queue(home).move(RunFolder.named(home, run), place)
        return queue()

    def queue_remove(run: str) -> list[str]:
        """Let a run wait no longer; gives back the queue."""
        Queue(home).remove(RunFolder.named(home, run))
        return queue()

    for act in (resume, status, runs, queue, queue_move, queue_remove):
        api(_endpoint(act), api_name=act.__name__)


def state_of(watch: Watch) -> dict[str, Any]:
    """What `status` answers: plain values, ready for JSON."""
    ended = watch.view.ended
    return {
        "run": watch.run.path.name,
        "state": watch.status,
        "step": watch.step,
        "steps_total": watch.steps_total,
        "loss": watch.view.steps[-1].loss if watch.view.steps else None,
        "seconds_left": watch.seconds_left if watch.status == "running" else None,
        "files": [lora.file for lora in watch.view.loras],
        "folder": str(watch.run.path),
        "error": on_page(ended.message, "en") if isinstance(ended, RunFailed) else "",
    }


def _start(home: Home) -> Callable[..., str]:
    def start(preset: str = EXAMPLE, **named: Any) -> str:  # noqa: ANN401 - settings of many kinds
        """Train with a preset; what is not given is the preset's. Gives back the run's name."""
        given = {name: value for name, value in named.items() if value is not None}
        for old, new in RENAMED.items():
            if api_name(old) in given:
                given.setdefault(api_name(new), given.pop(api_name(old)))
        unknown = sorted(given.keys() - {api_name(place) for place in SETTINGS})
        if unknown:
            raise gr.Error(f"There is no parameter {unknown[0]}; the Help page lists them all.", print_exception=False)
        usual = flat(preset_config(home, preset))
        values = {api_name(place): shown(info, usual[place]) for place, info in SETTINGS.items()}
        return start_run(home, read(home, preset, {**values, **given})).path.name

    settings = [
        inspect.Parameter(
            api_name(place),
            inspect.Parameter.POSITIONAL_OR_KEYWORD,  # Gradio gives all by place
            default=None,
            annotation=KINDS.get(info.kind, str) | None,
        )
        for place, info in [*SETTINGS.items(), *((old, SETTINGS[new]) for old, new in RENAMED.items())]
    ]
    first = inspect.Parameter("preset", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=EXAMPLE, annotation=str)
    start.__signature__ = inspect.Signature([first, *settings], return_annotation=str)  # type: ignore[attr-defined]
    start.__annotations__ = {one.name: one.annotation for one in (first, *settings)} | {"return": str}
    return start


def _asking(home: Home, what: Request) -> Callable[[str], str]:
    def ask(run: str) -> str:
        """Ask the run's trainer for this; it looks once per step. Gives back the run's name."""
        folder = RunFolder.named(home, run)
        folder.request(what)
        return folder.path.name

    return ask


def _endpoint(act: Callable[..., Any]) -> Callable[..., Any]:
    """Make an action take its named parameters by position, as Gradio sends them, and report its errors."""
    signature = inspect.signature(act)

    def by_place(*arguments: Any) -> Any:  # noqa: ANN401
        """The action's answer."""
        return act(**dict(zip(signature.parameters, arguments, strict=False)))

    by_place.__signature__ = signature  # type: ignore[attr-defined]
    by_place.__annotations__, by_place.__doc__, by_place.__name__ = act.__annotations__, act.__doc__, act.__name__
    return reported(by_place)
