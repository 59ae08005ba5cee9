"""What a run will do, shown before it starts."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainer.contract.home import Home
from trainer.contract.settings.config import TrainConfig
from trainer.contract.settings.dataset import DatasetSettings
from trainer.contract.toml import flat
from trainer.contract.units import size
from trainer.dataset.overlay import overlays_in
from trainer.dataset.problems import Problem
from trainer.dataset.views import Plan
from trainer.models.hub import look
from trainer.models.hub_errors import HubError
from trainer.models.identify import identify
from trainer.models.lookup import located, models_here, name_of
from trainer.planning.estimate import foreseen, learning_strength
from trainer.planning.memory import details
from trainer.planning.preview_schedule import Drawing, words
from trainer.runs.process import Group


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
    """What was changed here about the images and is trained, so that nobody wonders where a caption comes from."""
    here = overlays_in(dataset, home)
    if here:
        told = f'Changed here, and trained so: {", ".join(here)} (--dataset.captions "" takes the folders as they are).'
        console.print(told, markup=False, soft_wrap=True)


def show_plan(config: TrainConfig, made: Plan, problems: Sequence[Problem], group: Group, console: Console) -> None:
    """The plan in one sentence, and what was noticed about the images."""
    batch = f"batch {config.dataset.batch_size}"
    if config.dataset.accumulation > 1:
        batch += f" x {config.dataset.accumulation}"
    strength = learning_strength(config.optimizer.learning_rate, config.adapter.alpha, config.adapter.rank)
    console.print(
        f"{made.images} images × {made.views_per_image:.4g} views = [bold]{made.steps} steps[/] at {batch}; "
        f"learning strength {strength:.2g}; writes up to {config.output.files} LoRA files, "
        f"the last one {escape(config.output.name)}.safetensors."
    )
    if made.base_views:
        console.print(
            f"Protecting the base model: {config.dataset.class_images} images are drawn first, if no earlier run "
            f"has; {made.base_views} views of them make {config.dataset.class_share:.0%} of all.",
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
