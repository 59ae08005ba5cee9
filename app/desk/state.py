"""What the page shows of a project, from its file alone: values, what differs, what is wrong, the plan."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any, TypedDict

from app.desk import plan
from app.desk.images import dataset_link
from app.desk.models import line_of, model_of, remedy_label, remedy_of
from app.desk.presets import intent_of, preset_config
from app.kit.cards import alert_card, explanation, problem_card
from app.kit.form import config_of, shown, shown_values, typed
from app.kit.rows import SETTINGS
from app.kit.text import say
from app.kit.wording import on_page
from trainer.contract.errors import InvalidSettings, TrainerError
from trainer.contract.home import Home
from trainer.contract.presets import OF_ONE_RUN
from trainer.contract.settings.config import TrainConfig, validated
from trainer.dataset.captions import Item
from trainer.models.errors import ModelError
from trainer.planning.strength import learning_strength
from trainer.projects.project import Entered, Project

OF_THE_USER = (*OF_ONE_RUN, "dataset.trigger_word", "dataset.captions")  # a preset leaves these as they are
MODEL = "model.base_model"
STRENGTH = ("optimizer.learning_rate", "adapter.alpha", "adapter.rank")


class PlanData(TypedDict):
    """The bar's text, as HTML."""

    first: str  # what happens
    second: str  # what it costs, and why
    notes: list[str]  # what to look at before Train
    problem: str  # why it cannot be trained; empty if it can
    uncaptioned: str  # how many images no word would call up, to be captioned; empty for none
    images: int  # that are trained; 0 while that is not known
    repeats: int  # of each image, by its folder's name; 1 where they differ, 0 while that is not known


class StateData(TypedDict):
    """A project as the page shows it, ready for JSON."""

    project: str
    changes: int
    preset: str
    goal: str
    intent: str
    values: dict[str, Any]
    usual: dict[str, Any]  # the preset's value, where another is shown
    wrong: dict[str, str]
    strength: float | None
    plan: PlanData
    model: str
    remedy: str  # what else the model needs, as a button says it
    text: str  # what was entered, as TOML
    smaller: str  # the size that fits where this one does not, as a button says it
    look_closer: str  # the address of the images' room


@dataclass(frozen=True)
class Desk:
    """One project's values over its preset's."""

    home: Home
    project: Project | None
    entered: Entered

    @classmethod
    def of(cls, home: Home, project: Project | None) -> Desk:
        """A project's, or those of one that nothing was entered for yet.

        Raises:
            TrainerError: Its file cannot be read.
        """
        return cls(home, project, project.read() if project else Entered())

    @cached_property
    def preset(self) -> str:
        """The preset's name; empty if there is none, or none of that name any more."""
        try:
            self.check_preset()
        except TrainerError:
            return ""
        return self.entered.preset

    def check_preset(self) -> None:
        """Refuse a preset that is not there.

        Raises:
            UnknownPreset: There is none of that name any more.
        """
        if self.entered.preset:
            preset_config(self.home, self.entered.preset)

    @cached_property
    def base(self) -> TrainConfig:
        """What the preset says; without one, the defaults, and no base model: the toy is nobody's silent choice."""
        if self.preset:
            return preset_config(self.home, self.preset, str(self.entered.values.get("dataset.images") or ""))
        defaults = validated({})
        return defaults.model_copy(update={"model": defaults.model.model_copy(update={"base_model": ""})})

    @property
    def goal(self) -> str:
        """What is trained: style, character or concept."""
        return str(self.entered.values.get("goal") or self.base.goal)

    @cached_property
    def values(self) -> dict[str, Any]:
        """What every setting shows, by place."""
        given = {place: value for place, value in self.entered.values.items() if place in SETTINGS}
        return shown_values(self.base) | {place: as_shown(place, value) for place, value in given.items()}

    def config(self) -> TrainConfig:
        """The settings of a run.

        Raises:
            TrainerError: They cannot be used; what is wrong is named.
        """
        self.check_preset()
        values = self.values
        if not str(values[MODEL]).strip():
            raise InvalidSettings("No base model is chosen.", hint="Choose what you want to use the LoRA with.")
        config = plan.read(self.home, values, self.entered.preset, self.goal)
        return config.model_copy(update={"project": self.project.name if self.project else ""})

    def config_of_preset(self) -> TrainConfig:
        """The settings as a preset keeps them; images and model need not be there.

        Raises:
            InvalidSettings: Naming what is wrong.
        """
        return config_of(self.values, self.entered.preset, self.goal)

    def kept(self) -> dict[str, Any]:
        """What every setting is, to be entered: for when the preset goes."""
        values = {place: typed(SETTINGS[place], value) for place, value in self.values.items()}
        return {"goal": self.goal, **{place: value for place, value in values.items() if value not in ("", [], None)}}


def as_shown(place: str, value: object) -> object:
    """A value of the file as a field shows it."""
    if isinstance(value, list | tuple):
        lines = [json.dumps(one, ensure_ascii=False) if isinstance(one, Mapping) else str(one) for one in value]
        return shown(SETTINGS[place], lines)
    return value


def state_of(home: Home, project: Project | None, tongue: str) -> StateData:
    """Returns what the page shows of a project.

    Raises:
        TrainerError: Its file cannot be read.
    """
    desk = Desk.of(home, project)
    values, goal, preset = desk.values, desk.goal, desk.preset
    differs = plan.differing(values, desk.base)
    planned, wrong = _planned(desk, values, tongue)
    model = model_of(str(values[MODEL]))
    deciding = {"family": values["model.family"], "resolution": values["dataset.resolution"], "goal": goal}
    fits_at = plan.smaller(values, preset, goal)
    return {
        "project": project.name if project else "",
        "changes": desk.entered.changes,
        "preset": preset,
        "goal": goal,
        "intent": intent_of(home, preset, tongue),
        "values": values,
        "usual": {place: value for place, value in differs.items() if place not in OF_THE_USER},
        "wrong": wrong,
        "strength": _strength(values),
        "plan": planned,
        "model": line_of(str(values[MODEL]), model, tongue),
        "remedy": remedy_label(home, remedy_of(home, model, preset=preset, **deciding), tongue),
        "text": desk.entered.text(),
        "smaller": say(tongue, "plan.smaller", px=fits_at) if fits_at else "",
        "look_closer": dataset_link(values, preset),
    }


def _strength(values: Mapping[str, Any]) -> float | None:
    try:
        rate, alpha, rank = (float(values[place]) for place in STRENGTH)
        return learning_strength(rate, alpha, rank)
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def _planned(desk: Desk, values: Mapping[str, Any], tongue: str) -> tuple[PlanData, dict[str, str]]:
    """The plan or the problem, and what is wrong with which setting."""
    nothing: PlanData = {
        "first": "",
        "second": "",
        "notes": [],
        "problem": "",
        "uncaptioned": "",
        "images": 0,
        "repeats": 0,
    }
    preset, goal = desk.preset, desk.goal
    try:
        desk.check_preset()
    except TrainerError as error:
        return {**nothing, "problem": problem_card(error, tongue)}, {}
    unfinished = "train.no_folder" if not str(values["dataset.images"]).strip() else ""
    if not unfinished and not str(values[MODEL]).strip():
        unfinished = "train.no_model"
    if unfinished:
        return {**nothing, "first": say(tongue, unfinished)}, plan.model_problems(values, preset, goal, tongue)
    try:
        config = desk.config()
        items, problems = plan.found_in(config.dataset)
        said = [escape(part) for part in plan.parts(desk.home, config, items, tongue)]
        cautions = plan.cautions(desk.home, config, items, tongue)
        notes = [*plan.started(config, tongue), *(f"⚠ {text}" for text in cautions)]
    except InvalidSettings as error:
        shorter = InvalidSettings(error.message, hint=say(tongue, "train.mend") if error.places else error.hint)
        wrong = plan.wrong_settings(error, tongue)
        return {**nothing, "problem": alert_card(explanation(shorter, error.code, tongue))}, wrong
    except ModelError as error:
        wrong = plan.model_problems(values, preset, goal, tongue)
        return {**nothing, "problem": problem_card(error, tongue)}, wrong
    except TrainerError as error:
        wrong = {} if error.code == "error" else {"dataset.images": on_page(error.message, tongue)}
        return {**nothing, "problem": problem_card(error, tongue)}, wrong
    first, *rest = said
    second = " · ".join(f"<strong>{part}</strong>" if part.startswith("⚠") else part for part in rest)
    bare = plan.uncaptioned(config, problems, tongue)
    return {
        **nothing,
        "first": first,
        "second": second,
        "notes": [escape(note) for note in notes],
        "uncaptioned": bare,
        "images": len(items),
        "repeats": _repeats(items),
    }, {}


def _repeats(items: Sequence[Item]) -> int:
    weights = {item.weight for item in items}
    common = weights.pop() if len(weights) == 1 else 1.0
    return int(common) if common > 1 and common.is_integer() else 1
