"""The page's actions for programs: named endpoints with named parameters, used through `gradio_client`."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.events import api

from app.desk.begin import start_run
from app.desk.plan import read
from app.desk.presets import EXAMPLE, preset_config
from app.kit.action_errors import reported
from app.kit.form import api_name, shown
from app.kit.rows import SETTINGS
from app.kit.wording import on_page
from app.live.monitor import Watch, Watches
from trainer.contract.errors import TrainerError
from trainer.contract.events import RunFailed
from trainer.contract.home import Home
from trainer.contract.toml import RENAMED, flat
from trainer.planning.moving import move_inputs
from trainer.runs.folder import RunFolder
from trainer.runs.queue import Queue
from trainer.runs.workfolder import BY_PEOPLE, Request

KINDS: dict[str, Any] = {"switch": bool, "whole": int, "number": float}


def register(home: Home, watches: Watches) -> None:
    """Register all endpoints, inside the Blocks."""
    api(_endpoint(_start(home)), api_name="start")
    for what in BY_PEOPLE:
        api(_endpoint(_asking(home, what)), api_name=what)

    def resume(run: str) -> str:
        """Resume a run from its last checkpoint, after the queued runs. Returns its name."""
        folder = RunFolder.named(home, run)
        Queue(home).start(folder)
        return folder.path.name

    def move(run: str, images: str = "", base_model: str = "", vae: str = "") -> str:
        """Note where a run's images, base model and VAE are now, before it is resumed. Returns its name."""
        folder = RunFolder.named(home, run)
        places = {"dataset.images": images, "model.base_model": base_model, "model.vae": vae}
        move_inputs(folder, {place: path for place, path in places.items() if path})
        return folder.path.name

    def status(run: str = "") -> dict[str, Any]:
        """Returns a run's state, step, loss, time left and files; without a name, the newest run's."""
        newest = RunFolder.all(home)[:1]
        return state_of(watches.whole(RunFolder.named(home, run) if run or not newest else newest[0]))

    def runs() -> list[dict[str, Any]]:
        """Returns the status of all runs, newest first."""
        return [_known_of(watches, folder) for folder in RunFolder.all(home)]

    def queue() -> list[str]:
        """Returns the names of the queued runs, next first."""
        return [folder.path.name for folder in Queue(home).waiting()]

    def queue_move(run: str, place: int) -> list[str]:
        """Move a queued run to this position, 0 being next. Returns the queue."""
        Queue(home).move(RunFolder.named(home, run), place)
        return queue()

    def queue_remove(run: str) -> list[str]:
        """Remove a run from the queue. Returns the queue."""
        Queue(home).remove(RunFolder.named(home, run))
        return queue()

    for act in (resume, move, status, runs, queue, queue_move, queue_remove):
        api(_endpoint(act), api_name=act.__name__)


def state_of(watch: Watch) -> dict[str, Any]:
    """Returns what `status` answers: plain values, ready for JSON."""
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


def _known_of(watches: Watches, run: RunFolder) -> dict[str, Any]:
    """What `status` answers, also of a run whose files are damaged."""
    try:
        return state_of(watches.whole(run))
    except OSError as error:
        said = error.message if isinstance(error, TrainerError) else f"{run.events_file} cannot be read: {error}."
        nothing: dict[str, Any] = {"step": 0, "steps_total": 0, "loss": None, "seconds_left": None, "files": []}
        told = {"folder": str(run.path), "error": on_page(said, "en")}
        return {"run": run.path.name, "state": "damaged", **nothing, **told}


def _start(home: Home) -> Callable[..., str]:
    def start(preset: str = EXAMPLE, **named: Any) -> str:  # noqa: ANN401 - settings of many kinds
        """Train with a preset; settings that are not given are the preset's. Returns the run's name."""
        given = {name: value for name, value in named.items() if value is not None}
        for old, new in RENAMED.items():
            if api_name(old) in given:
                given.setdefault(api_name(new), given.pop(api_name(old)))
        unknown = sorted(given.keys() - {api_name(place) for place in SETTINGS})
        if unknown:
            raise gr.Error(f"There is no parameter {unknown[0]}; the Help page lists them all.", print_exception=False)
        base = preset_config(home, preset, str(given.get("dataset_images", "")))
        usual = flat(base)
        values = {place: given.get(api_name(place), shown(info, usual[place])) for place, info in SETTINGS.items()}
        return start_run(home, read(home, values, preset, base.goal)).path.name

    settings = [
        inspect.Parameter(
            api_name(place),
            inspect.Parameter.POSITIONAL_OR_KEYWORD,  # Gradio passes all by position
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
        """Ask the run's trainer to do this after its current step. Returns the run's name."""
        folder = RunFolder.named(home, run)
        folder.request(what)
        return folder.path.name

    return ask


def _endpoint(act: Callable[..., Any]) -> Callable[..., Any]:
    """Make an action take its named parameters by position, as Gradio sends them, and report its errors."""
    signature = inspect.signature(act)

    @functools.wraps(act)
    def by_position(*arguments: Any) -> Any:  # noqa: ANN401
        """The action's answer."""
        return act(**dict(zip(signature.parameters, arguments, strict=False)))

    return reported(by_position)
