"""What a run will do, shown before it starts."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainer.console.errors import show_note
from trainer.contract.home import Home
from trainer.contract.settings.config import TrainConfig
from trainer.contract.settings.dataset import DatasetSettings
from trainer.contract.toml import flat
from trainer.contract.units import size
from trainer.contract.wording import for_console
from trainer.dataset.class_images import class_images_of
from trainer.dataset.overlay import overlays_in
from trainer.dataset.problems import Problem
from trainer.dataset.views import Plan, limit_of
from trainer.models.hub import look
from trainer.models.hub_errors import HubError
from trainer.models.identify import identify
from trainer.models.lookup import located
from trainer.planning.estimate import foreseen
from trainer.planning.memory import details
from trainer.planning.preview_schedule import PreviewPlan, words
from trainer.planning.ready import rounded, start_of
from trainer.planning.strength import learning_strength, strength_problems
from trainer.runs.process import Group


def show_model(base_model: str, console: Console) -> None:
    """Print what the base model is, or how much of it must be downloaded first."""
    path = located(base_model)
    if path is not None:
        console.print(f"Base model: {base_model}: {identify(path).sentence()}", markup=False, soft_wrap=True)
        return
    try:
        missing = size(look(base_model).missing_bytes)
    except HubError as error:
        show_note(error.message, error.hint, console)
        return
    console.print(f"Base model: {base_model}: {missing} will be downloaded first.", markup=False, soft_wrap=True)


def show_start(config: TrainConfig, console: Console) -> None:
    """Print what LoRA file the run continues, and how many of its layers are not in it."""
    start = start_of(config)
    if start is None:
        return
    fresh = f" {start.fresh} of {start.trained} layers are not in it and start fresh." if start.fresh else ""
    said = f"Continues from {start.file.path.name}: {start.file.sentence()}.{fresh}"
    console.print(said, markup=False, soft_wrap=True)


def show_settings(config: TrainConfig, origins: dict[str, str], console: Console) -> None:
    """Print every setting, its value, and the layer it came from."""
    table = Table("setting", "value", "from", box=None, pad_edge=False)
    for place, value in flat(config).items():
        origin = origins.get(place, "default")
        table.add_row(place, escape(str(value)), escape(origin), style="dim" if origin == "default" else "")
    console.print(table)


def show_overlays(dataset: DatasetSettings, home: Home, console: Console) -> None:
    """Print which edits made in Atelier are trained, so that nobody wonders where a caption comes from."""
    here = overlays_in(dataset, home)
    if here:
        edits = (
            f'With the edits made in Atelier: {", ".join(here)} (--dataset.captions "" uses the folders as they are).'
        )
        console.print(edits, markup=False, soft_wrap=True)


def show_plan(config: TrainConfig, made: Plan, problems: Sequence[Problem], group: Group, console: Console) -> None:
    """Print the plan in one sentence, and notes about the images."""
    batch = f"batch {config.dataset.batch_size}"
    if config.dataset.accumulation > 1:
        batch += f" with {config.dataset.accumulation} steps of gradient accumulation"
    strength = learning_strength(config.optimizer.learning_rate, config.adapter.alpha, config.adapter.rank)
    console.print(
        f"{made.images} images × {made.views_per_image:.4g} views = [bold]{made.steps} steps[/] at {batch}; "
        f"learning strength {strength:.2g}; writes up to {config.output.files} LoRA files, "
        f"the last one {escape(config.output.name)}.safetensors."
    )
    limit = limit_of(made.images, config.dataset)
    if limit:
        console.print(
            f"{made.images} images × {config.dataset.views} views would be {limit.asked}; "
            f"--{limit.place} {limit.views} makes it {made.views_per_image:.4g} each.",
            style="yellow",
            markup=False,
        )
    for wanted, trained in rounded(config).items():
        console.print(
            f"Resolution {wanted} px is trained at {trained} px: this model takes no sizes between.", style="yellow"
        )
    if made.base_views:
        own = len(class_images_of(config.dataset, config.model.seed))
        which = (
            f"{own} class images of your own"
            if own
            else (f"{config.dataset.class_images} class images are generated first, if no earlier run has")
        )
        share = f"{made.base_views} views of them make {config.dataset.class_share:.0%} of all"
        console.print(f"Prior preservation: {which}; {share}.", markup=False)
    memory = foreseen(config, group.size)
    if memory is not None:
        console.print(f"Memory: {details(memory)}.", style="" if memory.fits else "yellow", markup=False)
    for problem in [*strength_problems(config), *problems]:
        show_note(problem.message, problem.hint, console)


def show_previews(planned: PreviewPlan, console: Console) -> None:
    """Print how many previews there will be, their share of the time, and what to do where that is much."""
    line = f"Previews: {for_console(words(planned))}."
    console.print(line, style="yellow" if planned.many else "", markup=False, soft_wrap=True)
