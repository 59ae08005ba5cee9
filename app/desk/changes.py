"""What a person enters and chooses, as changes to the project's file; the first one makes the project."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from app.desk.begin import continuation
from app.desk.models import model_of, preset_of_model, remedy_of
from app.desk.plan import smaller
from app.desk.presets import EXAMPLE, alike, preset_config, preset_for
from app.desk.state import MODEL, OF_THE_USER, STRENGTH, Desk
from app.kit.form import shown_values, typed
from app.kit.rows import SETTINGS
from app.kit.text import TABLES, say
from trainer.contract.errors import TrainerError
from trainer.contract.home import Home
from trainer.contract.settings.config import TrainConfig
from trainer.projects.project import Project
from trainer.projects.transfer import entered_as_text
from trainer.runs.folder import RunFolder

NAME = "output.name"
EXAMPLE_NAME = "example"
NEW_NAMES = {tongue: say(tongue, "project.new_name") for tongue in TABLES}
AUTOMATIC = re.compile(rf"({'|'.join(NEW_NAMES.values())}|{EXAMPLE_NAME})( \d+)?")  # a name that nobody has chosen
Changes = dict[str, Any]  # by place, "preset" or "goal"; None takes the preset's again


def made(home: Home, project: Project | None, changes: Changes, tongue: str = "en") -> Project:
    """Returns the project with the changes, a new one with a name in this language if there was none.

    Raises:
        TrainerError: The project's file cannot be changed.
    """
    if project is None:
        values = {place: value for place, value in changes.items() if value is not None}
        return Project.create(home, NEW_NAMES[tongue], values)
    if changes:
        project.enter(changes)
    return project


def entered(desk: Desk, changes: Mapping[str, Any], held: float | None) -> Changes:
    """What fields were changed to, as the file keeps it.

    Args:
        desk: What was shown before.
        changes: What fields show now, by place.
        held: The learning strength to keep when rank or alpha changes; None: the learning rate stays.
    """
    usual = shown_values(desk.base)
    found: Changes = {}
    for place, value in changes.items():
        if place in SETTINGS:
            plain = typed(SETTINGS[place], "" if value is None else value)
            found[place] = None if value == usual[place] and place not in OF_THE_USER else plain
    return found | _rate(desk, {**desk.values, **changes}, changes, held)


def _rate(desk: Desk, values: Mapping[str, Any], changes: Mapping[str, Any], held: float | None) -> Changes:
    """The learning rate that makes the held strength with a new rank or alpha."""
    rate, alpha, rank = STRENGTH
    if not held or rate in changes or not (alpha in changes or rank in changes):
        return {}
    with suppress(TypeError, ValueError, ZeroDivisionError):
        fresh = float(f"{held * float(values[rank]) / float(values[alpha]):.3g}")
        return {rate: None if fresh == shown_values(desk.base)[rate] else fresh}
    return {}


def with_preset(desk: Desk, preset: str, kept: Changes | None = None) -> Changes:
    """Another preset; what is the user's own stays, and what is `kept`, by place."""
    dropped = [place for place in desk.entered.values if place in SETTINGS and place not in OF_THE_USER]
    return {**dict.fromkeys(dropped), "preset": preset, "goal": None, **(kept or {})}


def with_goal(desk: Desk, goal: str) -> Changes:
    """Another goal: its preset, of the same base model if there is one; a model that suits it stays."""
    preset = desk.preset
    if not preset:
        return {"goal": goal}
    chosen = preset_for(desk.home, goal, preset)
    if preset_config(desk.home, chosen).goal != goal:
        return {"goal": goal}
    kept = {MODEL: desk.entered.values.get(MODEL)} if alike(desk.home, chosen, preset) else {}
    return with_preset(desk, chosen, kept)


def with_model(desk: Desk, base_model: str) -> Changes:
    """Another base model, and the preset for it where the present one is for another kind."""
    model, preset = model_of(base_model), desk.preset
    suits = preset and model is not None and desk.values["model.family"] in ("auto", model.family)
    same_size = model is not None and desk.values["dataset.resolution"] == model.default_size
    chosen = "" if suits and same_size else preset_of_model(desk.home, base_model, desk.goal)
    if not chosen or chosen == preset:
        usual = desk.base.model.base_model
        return {MODEL: None if base_model == usual else base_model}
    usual = preset_config(desk.home, chosen).model.base_model
    return with_preset(desk, chosen, {MODEL: None if base_model == usual else base_model})


def with_remedy(desk: Desk) -> Changes:
    """What the base model needs: another preset, or only its resolution."""
    values = desk.values
    deciding = {"family": values["model.family"], "resolution": values["dataset.resolution"], "goal": desk.goal}
    base = str(values[MODEL])
    remedy = remedy_of(desk.home, model_of(base), preset=desk.preset, **deciding)
    if isinstance(remedy, str):
        usual = preset_config(desk.home, remedy).model.base_model
        return with_preset(desk, remedy, {MODEL: None if base == usual else base})
    return {"dataset.resolution": remedy} if remedy else {}


def with_text(text: str, before: str) -> Changes:
    """What was edited as TOML: only what differs from the text before, for another tab may have written the rest.

    Raises:
        InvalidSettings: It is no TOML, or holds a setting that does not exist.
    """
    now, then = entered_as_text(text).values, entered_as_text(before).values
    gone = dict.fromkeys(place for place in then if place not in now)
    return {**gone, **{place: value for place, value in now.items() if place not in then or then[place] != value}}


def with_smaller(desk: Desk) -> Changes:
    """The resolution that fits where the present one does not."""
    fits_at = smaller(desk.values, desk.preset, desk.goal)
    return {"dataset.resolution": fits_at} if fits_at else {}


def example() -> Changes:
    """The built-in images, model and preset."""
    return {"preset": EXAMPLE, NAME: EXAMPLE_NAME}


def of_config(home: Home, config: TrainConfig) -> Changes:
    """A run's settings over its preset; one that is gone is the usual one for its goal."""
    preset, images = config.preset, config.dataset.images
    try:
        base = preset_config(home, preset, images)
    except TrainerError:
        preset = preset_for(home, config.goal, EXAMPLE)
        base = preset_config(home, preset, images)
    usual, values = shown_values(base), shown_values(config)
    changed = {place: value for place, value in values.items() if value != usual[place] or place in OF_THE_USER}
    kept = {place: typed(SETTINGS[place], value) for place, value in changed.items() if value not in ("", None)}
    return {"preset": preset, "goal": config.goal, **kept}


def taken_up(home: Home, run: RunFolder, file: str | None) -> Project:
    """Returns the run's project with its settings, to train again; with a file, to continue from that under a new name.

    Raises:
        TrainerError: The settings or the file cannot be used.
    """
    config = run.config() if file is None else continuation(home, run, file)
    changes = of_config(home, config)
    project = None
    with suppress(TrainerError):  # it was deleted, or the run has none
        project = Project.named(home, config.project) if config.project else None
    if project is None:
        return made(home, None, changes)
    gone = dict.fromkeys(place for place in project.read().values if place not in changes)
    return made(home, project, {**gone, **changes})


def named_by_user(project: Project) -> Project:
    """Returns the project, called by its LoRA's name if nobody has named it and nothing was trained in it yet."""
    wanted = project.read().values.get(NAME)
    if not AUTOMATIC.fullmatch(project.name) or not isinstance(wanted, str) or not wanted.strip():
        return project
    if project.runs():
        return project
    with suppress(TrainerError, OSError):  # no folder can be called so, or another has it open
        return project.renamed(wanted)
    return project


def of_images(home: Home, images: str) -> Project:
    """The project of an image folder that was changed last, or a new one."""
    for project in Project.all(home):
        with suppress(TrainerError):
            if Desk.of(home, project).values["dataset.images"] == images:
                return project
    return made(home, None, {"dataset.images": images})
