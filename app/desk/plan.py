"""What pressing Train will do, in one sentence, or what is wrong with the settings."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.desk.presets import preset_config
from app.kit.form import config_of, shown_values
from app.kit.text import say
from app.kit.wording import explained, on_page, setting_name
from trainer.contract.errors import InvalidSettings, TrainerError
from trainer.contract.home import Home
from trainer.contract.settings.config import TrainConfig, with_paths
from trainer.contract.settings.dataset import DatasetSettings
from trainer.contract.units import duration, size
from trainer.dataset.captions import Item, first_caption
from trainer.dataset.class_images import class_images_of
from trainer.dataset.kept import Surveys
from trainer.dataset.overlay import with_overlays
from trainer.dataset.problems import NO_CAPTION, Problem
from trainer.dataset.scan import images_of
from trainer.dataset.views import limit_of, plan
from trainer.doctor.masks import mask_problems
from trainer.models.compatible import check_chosen
from trainer.models.errors import ModelError
from trainer.planning.effect import prompt_options, without_effect
from trainer.planning.estimate import disk_bytes, estimate, foreseen
from trainer.planning.memory import GIB
from trainer.planning.ready import absolute, rounded, settled, start_of
from trainer.planning.strength import Far, far_strengths

SURVEYS = Surveys()


def read(home: Home, values: Mapping[str, Any], preset: str, goal: str) -> TrainConfig:
    """Returns what the page shows as settings ready for a run, with what was edited in the images' room.

    Args:
        home: Holds what was edited.
        values: What each setting shows, by place.
        preset: Name of the preset they started from.
        goal: What is trained.

    Raises:
        TrainerError: Naming what is wrong.
    """
    config = settled(config_of(values, preset, goal))
    return config.model_copy(update={"dataset": with_overlays(config.dataset, home)})


def model_problems(values: Mapping[str, Any], preset: str, goal: str, tongue: str) -> dict[str, str]:
    """Returns what is wrong with the base model or with settings beside it, by place; known before there are images."""
    if not str(values["model.base_model"]).strip():
        return {}
    try:
        check_chosen(with_paths(config_of(values, preset, goal), absolute))
    except InvalidSettings as error:
        return wrong_settings(error, tongue)
    except ModelError as error:
        return {"model.base_model": explained(error, tongue)}
    return {}


def wrong_settings(error: InvalidSettings, tongue: str) -> dict[str, str]:
    """Returns what is wrong with which setting, by place, in the page's words."""
    return {place: on_page(text, tongue) for place, text in error.places.items()}


def found_in(dataset: DatasetSettings) -> tuple[list[Item], list[Problem]]:
    """Returns the images that are trained, and what was noticed in their folders; read again only when a file changed.

    Raises:
        TrainerError: The images cannot be used.
    """
    return images_of(dataset, SURVEYS)


def parts(home: Home, config: TrainConfig, items: Sequence[Item], tongue: str) -> list[str]:
    """Steps, time, memory and files of these settings with these images, as plain texts, the steps first.

    Raises:
        TrainerError: The images cannot be used.
    """
    made, known = plan(len(items), config.dataset), estimate(home, config)
    said = [
        say(
            tongue,
            "plan.steps",
            images=made.images,
            views=f"{made.views_per_image:.4g}",
            steps=made.steps,
            batch=config.dataset.batch_size * config.dataset.accumulation,
        )
    ]
    limit = limit_of(made.images, config.dataset)
    if limit:
        values = {"asked": limit.asked, "setting": setting_name(limit.place, tongue), "views": limit.views}
        values |= {"images": made.images, "each": config.dataset.views, "shown": f"{made.views_per_image:.4g}"}
        said.append(f"⚠ {say(tongue, 'plan.limit', **values)}")
    said += [f"⚠ {say(tongue, 'plan.rounded', px=px, trained=trained)}" for px, trained in rounded(config).items()]
    captions = [first_caption(item, config.dataset, config.model.seed) for item in items]
    previews = known.preview_plan(config, made, captions, config.model.processes)
    if made.base_views:
        own, share = class_images_of(config.dataset, config.model.seed), f"{config.dataset.class_share:.0%}"
        key, count = ("plan.class_images", len(own)) if own else ("plan.protect", config.dataset.class_images)
        said.append(say(tongue, key, images=count, share=share))
    if known.seconds_per_step is not None:
        seconds = known.seconds_per_step * made.steps / (1 - previews.share)
        said.append(say(tongue, "plan.time", duration=duration(seconds)))
    else:
        said.append(say(tongue, "plan.time_unknown"))
    key, sign = ("plan.previews_many", "⚠ ") if previews.many else ("plan.previews", "")
    said.append(sign + say(tongue, key, images=previews.images, share=previews.percent))
    said += _memory(config, known.memory_gib, tongue)
    if known.bytes_per_file is not None:
        said.append(say(tongue, "plan.files_of", files=config.output.files, size=size(known.bytes_per_file)))
    else:
        said.append(say(tongue, "plan.files", files=config.output.files))
    needed = disk_bytes(config, made.steps, captions)
    if needed is not None:
        said.append(say(tongue, "plan.disk", size=size(needed)))
    return said


def cautions(home: Home, config: TrainConfig, items: Sequence[Item], tongue: str) -> list[str]:
    """Returns what these settings and images would do that is hardly wanted, as plain texts.

    Raises:
        TrainerError: A mask cannot be used.
    """
    changed = differing(shown_values(config), preset_config(home, config.preset)) if config.preset else {}
    found = [*mask_problems(items, config, home), *prompt_options(config), *without_effect(config, changed)]
    notes = [explained(problem, tongue) for problem in found]
    return [*(_far(far, tongue) for far in far_strengths(config)), *notes]


def uncaptioned(config: TrainConfig, problems: Sequence[Problem], tongue: str) -> str:
    """Returns how many images would be trained without a word that calls up what they show; empty if none."""
    bare = sum(len(one.images) for one in problems if one.code == NO_CAPTION)
    return say(tongue, "plan.uncaptioned", images=bare) if bare and not config.dataset.trigger_word else ""


def _far(far: Far, tongue: str) -> str:
    """A learning strength far from the usual, and what to set."""
    low, high = far.usual
    settings = ", ".join(f"“{setting_name(place, tongue)}: {value:g}”" for place, value in far.remedy.items())
    values = {"strength": f"{far.strength:.2g}", "model": far.model, "low": f"{low:g}", "high": f"{high:g}"}
    return say(tongue, "plan.strength_far", settings=settings, **values)


def started(config: TrainConfig, tongue: str) -> list[str]:
    """Returns what LoRA file these settings continue, and how many layers are not in it, as plain texts.

    Raises:
        TrainerError: The file does not suit the settings.
    """
    start = start_of(config)
    if start is None:
        return []
    fresh = [say(tongue, "plan.start_fresh", fresh=start.fresh, layers=start.trained)] if start.fresh else []
    return [say(tongue, "plan.start_from", file=start.file.path.name), *fresh]


def smaller(values: Mapping[str, Any], preset: str, goal: str) -> int | None:
    """The resolution in px that would fit where this one does not."""
    try:
        made = foreseen(config_of(values, preset, goal))
    except TrainerError:
        return None
    return made.smaller if made else None


def _memory(config: TrainConfig, measured: float | None, tongue: str) -> list[str]:
    """Memory needed, as measured in an earlier run if there was one, and what saves memory."""
    plan = foreseen(config)
    if plan is None:
        return [] if measured is None else [say(tongue, "plan.memory", gib=f"{measured:.1f}")]
    takes, room = f"{plan.peak / GIB if measured is None else measured:.1f}", f"{(plan.budget or 0) / GIB:.1f}"
    savings, said = plan.savings, [say(tongue, "plan.memory_of", gib=takes, room=room)]
    if not plan.fits:
        said = [f"⚠ {say(tongue, 'plan.too_large', gib=takes, room=room)}"]
        if plan.smaller is None:
            said.append(say(tongue, "plan.close_others"))
    if plan.processes > 1:
        said.append(say(tongue, "plan.each", processes=plan.processes))
    if savings.level != "none" and config.model.gradient_checkpointing == "auto":
        said.append(say(tongue, f"plan.saving.{savings.level}"))
    if savings.batch_size < config.dataset.batch_size:
        said.append(say(tongue, "plan.saving.batch", size=savings.batch_size))
    if plan.tiled:
        said.append(say(tongue, "plan.saving.tiles"))
    if savings.quantize != "none":
        said.append(say(tongue, "plan.saving.bits", bits=savings.quantize.removesuffix("bit")))
    if plan.besides:
        said.append(say(tongue, "plan.saving.stream", gib=f"{plan.besides / GIB:.1f}"))
    return said


def differing(values: Mapping[str, Any], base: TrainConfig) -> dict[str, Any]:
    """The preset's value wherever a control shows another; `values` by place."""
    usual = shown_values(base)
    return {place: usual[place] for place in values if not _same(values[place], usual[place])}


def _same(one: Any, other: Any) -> bool:  # noqa: ANN401 - any setting's value
    if isinstance(other, str):
        return (one or "").strip() == other.strip()
    return bool(one == other)
