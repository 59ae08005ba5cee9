"""Headless training in the console: the same run folder, process and events as a page would use."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from trainer.console.doctor import checkup
from trainer.console.errors import FAILED, ended, show_error
from trainer.console.flags import given_group, given_settings, make_parser
from trainer.contract.errors import InvalidSettings, TrainerEnded, isolated
from trainer.contract.events import (
    Event,
    Lora,
    Phase,
    RunFailed,
    RunFinished,
    RunStarted,
    RunView,
    Sample,
    Step,
    Warned,
    read_events,
)
from trainer.contract.home import Home
from trainer.contract.presets import FOLDER, Values, flat, list_presets, load_preset, overlay, read_toml, settled
from trainer.contract.settings.config import DatasetSettings, TrainConfig, validated
from trainer.contract.system_errors import FileGone
from trainer.contract.units import size
from trainer.dataset.buckets import Plan, plan
from trainer.dataset.captions import Problem, first_caption, pictures_of
from trainer.dataset.overlay import overlays_in, with_overlays
from trainer.models.compatible import located, models_here, name_of
from trainer.models.hub import look
from trainer.models.hub_errors import HubError
from trainer.models.identify import identify
from trainer.planning.disk import check_space
from trainer.planning.estimate import disk_bytes, estimate, foreseen
from trainer.planning.memory import details
from trainer.planning.preview_schedule import Drawing, words
from trainer.runs import process
from trainer.runs.folder import RunFolder
from trainer.runs.process import Group
from trainer.runs.queue import Queue
from trainer.runs.sheets import before_after

POLL_SECONDS = 0.25
PHASES = {
    "load": "Loading the base model",
    "download": "Fetching the base model (MiB)",
    "encode": "Encoding pictures",
    "protect": "Drawing what the base model is to be kept at",
    "train": "Training",
    "preview": "Drawing previews",
}


def main(arguments: Sequence[str]) -> int:
    """Do what the flags say; 0 on success, 2 on an error the user can act on."""
    console = Console(highlight=False)
    if any(word.partition("=")[0] == "--caption" for word in arguments):
        from trainer.console.caption import caption

        return ended(lambda: caption(arguments, console), console)
    return ended(lambda: _dispatch(make_parser().parse_args(arguments), console), console)


def _dispatch(flags: argparse.Namespace, console: Console) -> int:
    home = Home.find(flags.home)
    if flags.list_presets:
        usable, broken = list_presets(FOLDER, home.presets)
        for preset in usable:
            console.print(f"[bold]{escape(preset.name):22}[/] {escape(preset.intent)}")
        for error in broken:
            console.print(f"Note: {error.message}", style="yellow", markup=False)
        return 0
    if flags.models:
        list_models(console)
        return 0
    if flags.doctor or flags.export_dataset:
        return checkup(flags, given(flags, home)[0], home, console)
    if flags.resume:
        processes = vars(flags).pop("model.processes", None)
        if given_settings(flags) or flags.preset or flags.config:
            raise InvalidSettings(
                "A resumed run keeps its settings, but others were given.",
                hint="Leave them out, or start a new run with them.",
            )
        run = RunFolder.find(home, flags.resume)
        own = run.config().model
        model = validated({"model": {"processes": processes}}).model if processes else own
        return train(run, given_group(flags, model.processes, own.processes), flags.queue, console)
    config, origins = resolve(flags, home)
    group = given_group(flags, config.model.processes, config.model.processes)
    pictures, problems = pictures_of(config.dataset)
    made = plan(len(pictures), config.dataset)
    if flags.check:
        show_settings(config, origins, console)
    show_model(config.model.base_model, console)
    show_overlays(config.dataset, home, console)
    show_plan(config, made, problems, group, console)
    captions = [first_caption(item, config.dataset, config.model.seed) for item in pictures]
    show_previews(estimate(home, config).drawing(config, made, captions, group.size), console)
    needed = disk_bytes(config, made.steps, captions)
    if needed is not None:
        console.print(f"Disk: up to {size(needed)} in {home.runs}.", markup=False, soft_wrap=True)
        check_space(home.runs, needed)
    return 0 if flags.check else train(RunFolder.create(home, config), group, flags.queue, console)


def train(run: RunFolder, group: Group, queued: bool, console: Console) -> int:
    """Train and watch until the end, or leave the run to the queue."""
    if group.machine > 0:
        return assist(run, group, console)
    if not queued:
        return follow(run, group, console)
    queue = Queue(run.home)
    if queue.start(run):
        console.print(f"Started in the background: {run.path.name}", markup=False, soft_wrap=True)
    else:
        console.print(f"{run.path.name} waits as number {len(queue.waiting())}.", markup=False, soft_wrap=True)
    return 0


def resolve(flags: argparse.Namespace, home: Home) -> tuple[TrainConfig, dict[str, str]]:
    """Settings from preset, file and flags, and where each came from; relative paths become absolute.

    Raises:
        InvalidSettings: Neither preset nor file, or a value that is not allowed.
    """
    if not flags.preset and not flags.config:
        raise InvalidSettings("No preset given.", hint="Try --preset pocket-style, or --list-presets.")
    config, origins = given(flags, home)
    config = settled(config)
    if config.dataset.captions or origins["dataset.captions"] == "default":  # given empty: the folder's own alone
        dataset = with_overlays(config.dataset, home)
        if dataset.captions != config.dataset.captions:
            origins["dataset.captions"] = "changed here"
        config = config.model_copy(update={"dataset": dataset})
    return config, origins


def given(flags: argparse.Namespace, home: Home) -> tuple[TrainConfig, dict[str, str]]:
    """The same as they were given, whether or not a run could be made of them.

    Raises:
        InvalidSettings: A value that is not allowed.
    """
    layers: dict[str, Values] = {}
    if flags.preset:
        layers[f"preset {flags.preset}"] = load_preset(flags.preset, FOLDER, home.presets).values
    if flags.config:
        values = read_toml(flags.config)
        values.pop("intent", None)  # a copied preset's sentence
        layers[f"file {flags.config.name}"] = values
    layers["flag"] = given_settings(flags)
    return overlay(layers)


def list_models(console: Console) -> None:
    """The base models on this computer: name, what each is, whose it is, and what chooses it."""
    models = models_here()
    for one in models:
        console.print(f"[bold]{escape(one.name)}[/]  {escape(one.model.sentence())}", soft_wrap=True)
        console.print(f"  {one.where}: {name_of(one)}", markup=False, soft_wrap=True)
    if not models:
        console.print("No base models in the folders of WebUIs or in the hub's cache; --base-model takes any path.")


def show_model(base_model: str, console: Console) -> None:
    """What the base model is, or how much of it is to be fetched first."""
    path = located(base_model)
    if path is not None:
        console.print(f"Base model: {base_model}: {identify(path).sentence()}", markup=False, soft_wrap=True)
        return
    try:
        missing = size(look(base_model).missing_bytes)
    except HubError as error:
        console.print(f"Note: {error.message} {error.hint}", style="yellow", markup=False)
        return
    console.print(f"Base model: {base_model}: {missing} will be fetched first.", markup=False, soft_wrap=True)


def show_settings(config: TrainConfig, origins: dict[str, str], console: Console) -> None:
    """Every setting, its value, and the layer it came from."""
    table = Table("setting", "value", "from", box=None, pad_edge=False)
    for place, value in flat(config).items():
        origin = origins.get(place, "default")
        table.add_row(place, escape(str(value)), escape(origin), style="dim" if origin == "default" else "")
    console.print(table)


def show_overlays(dataset: DatasetSettings, home: Home, console: Console) -> None:
    """What was changed here about the pictures and is trained, so that nobody wonders where a caption comes from."""
    here = overlays_in(dataset, home)
    if here:
        told = f'Changed here, and trained so: {", ".join(here)} (--dataset.captions "" takes the folders as they are).'
        console.print(told, markup=False, soft_wrap=True)


def show_plan(config: TrainConfig, made: Plan, problems: Sequence[Problem], group: Group, console: Console) -> None:
    """The plan in one sentence, and what was noticed about the pictures."""
    batch = f"batch {config.dataset.batch_size}"
    if config.dataset.accumulation > 1:
        batch += f" x {config.dataset.accumulation}"
    strength = config.optimizer.learning_rate * config.adapter.alpha / config.adapter.rank
    console.print(
        f"{made.pictures} pictures × {made.views_per_picture:.4g} views = [bold]{made.steps} steps[/] at {batch}; "
        f"learning strength {strength:.2g}; writes up to {config.output.files} LoRA files, "
        f"the last one {escape(config.output.name)}.safetensors."
    )
    if made.base_views:
        console.print(
            f"Protecting the base model: {config.dataset.protect_pictures} pictures are drawn first, if no earlier run "
            f"has; {made.base_views} views of them make {config.dataset.protect_share:.0%} of all.",
            markup=False,
        )
    memory = foreseen(config, group.size)
    if memory is not None:
        console.print(f"Memory: {details(memory)}.", style="" if memory.fits else "yellow", markup=False)
    for problem in problems:
        console.print(f"  Note: {problem.message} {problem.hint}", style="yellow", markup=False)


def show_previews(drawn: Drawing, console: Console) -> None:
    """How many previews there will be, what share of the time they take, and what to do where that is much."""
    console.print(f"Previews: {words(drawn)}.", style="yellow" if drawn.many else "", markup=False, soft_wrap=True)


def assist(run: RunFolder, group: Group, console: Console) -> int:
    """Compute for the first of several computers, where progress is shown, until it ends; Ctrl-C leaves it."""
    console.print(f"Computer {group.machine} of 0 to {group.machines - 1}; the first one shows the progress.")
    child = process.start(run, group)
    try:
        code = child.wait()
    except KeyboardInterrupt:
        child.terminate()
        code = child.wait()
    console.print("Done." if code == 0 else f"Ended early; see {run.log_file}.", markup=False, soft_wrap=True)
    return code


def follow(run: RunFolder, group: Group, console: Console) -> int:
    """Train in a process of its own and show its events until it ends; Ctrl-C asks it to stop and save."""
    console.print(f"Run folder: {run.path}", markup=False, soft_wrap=True)
    cursor = run.events_file.stat().st_size if run.events_file.exists() else 0
    child = process.start(run, group)
    presses = 0
    with progress_bar(console) as bar:
        screen = _Screen(bar, console)
        while True:
            try:
                ended = child.poll() is not None  # asked before reading, so that nothing written is missed
                events, cursor, _ = read_events(run.events_file, cursor)
                screen.show(events)
                if ended:
                    break
                time.sleep(POLL_SECONDS)
            except KeyboardInterrupt:
                presses += 1
                _stop(run, console, at_once=presses > 1)
    return _farewell(run, child.returncode, console)


def _stop(run: RunFolder, console: Console, at_once: bool) -> None:
    """First Ctrl-C: stop and save. Second: end at once, keeping the last checkpoint."""
    if at_once:
        process.force_quit(run)
        console.print("Ended at once; the last checkpoint is kept.")
        return
    run.request("stop")
    console.print("Stopping after this step and saving… (Ctrl-C again ends at once)")


def progress_bar(console: Console) -> Progress:
    """How far it is, how long that took and how long the rest will take, on one line."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        refresh_per_second=4,
        speed_estimate_period=900,  # a step may take minutes on a CPU
    )


class _Screen:
    """Events as a progress bar; everything worth keeping is printed above it."""

    def __init__(self, bar: Progress, console: Console) -> None:
        self._bar, self._console = bar, console
        self._task: TaskID = bar.add_task("Starting", total=None, note="")
        self._smooth: float | None = None
        self._steps_total = 0

    def show(self, events: list[Event]) -> None:
        """Bring the screen up to date."""
        for event in events:
            match event:
                case RunStarted():
                    self._steps_total = event.steps_total
                    if event.resumed_at:
                        self._console.print(f"Resumed at step {event.resumed_at} of {event.steps_total}.")
                case Phase():
                    self._phase(event)
                case Step():
                    self._step(event)
                case Sample(index=0):
                    self._console.print(f"Preview at step {event.step}: {event.file}", markup=False)
                case Lora():
                    self._console.print(f"Saved {event.file} ({size(event.bytes)})", markup=False)
                case Warned():
                    self._console.print(f"Note: {event.message} {event.hint}", style="yellow", markup=False)
                case _:
                    pass

    def _phase(self, event: Phase) -> None:
        self._bar.reset(self._task, description=PHASES.get(event.name, event.name), total=event.total, note="")
        self._bar.update(self._task, completed=event.done)

    def _step(self, event: Step) -> None:
        self._smooth = event.loss if self._smooth is None else 0.95 * self._smooth + 0.05 * event.loss
        note = f"loss {self._smooth:.4f}, {event.seconds:.2f} s/step, {event.memory_gib:.2f} GiB"
        self._bar.update(
            self._task, description="Training", total=self._steps_total or None, completed=event.step, note=note
        )


def _farewell(run: RunFolder, code: int, console: Console) -> int:
    """What came out, and where it lies.

    Raises:
        FileGone: The run's folder was moved or deleted.
        TrainerEnded: Nothing says how it ended.
    """
    view = run.view()
    match view.ended:
        case RunFailed() as failed if code == 2:  # else the ending is an earlier process's
            show_error(failed, console)
            return FAILED
        case RunFinished() as finished if code == 0:
            _report(run, view, finished, console)
            return 0
        case _:
            if not run.config_file.is_file():
                raise FileGone(str(run.path))
            raise TrainerEnded(run.path.name, code, run.log_file)


def _report(run: RunFolder, view: RunView, finished: RunFinished, console: Console) -> None:
    console.print(
        f"[bold green]{finished.reason.capitalize()}[/] at step {finished.step} after {finished.seconds:.0f} s."
    )
    if view.loras:
        newest = view.loras[-1]
        console.print(f"LoRA file:    {run.path / newest.file} ({size(newest.bytes)})", markup=False, soft_wrap=True)
    with isolated("The before/after sheet", lambda _code, message, _hint: console.print(message, markup=False)):
        sheet = before_after(run, view)
        if sheet:
            console.print(f"Before/after: {sheet}", markup=False, soft_wrap=True)
    if finished.reason != "completed":
        console.print(f"Go on with:   python launch.py --resume {run.path.name}", markup=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
