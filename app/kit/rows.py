"""Every setting as a row of the page: names, range, steps; and the search over all of them."""

import re
from collections.abc import Mapping
from typing import TypedDict

from pydantic import BaseModel

from app.kit.questions import Answer, answer
from app.kit.text import ENGLISH, say
from app.kit.wording import on_page, section_name, setting_name
from trainer.contract.schema import SettingInfo, all_settings
from trainer.contract.settings.config import SECTIONS
from trainer.contract.vocabulary import Instead, kohya_name, search

KOHYA = re.compile(r" \(kohya: [^)]*\)")
SETTINGS = {info.place: info for info in all_settings()}
RATES_UP_TO = 0.1  # a number with such a limit is a learning rate, whose steps are factors
SHARE_STEP, SIZE_STEP, NUMBER_STEP = 0.05, 64, 0.5


class RowData(TypedDict):
    """One setting, ready for JSON."""

    place: str
    id: str
    section: str
    label: str
    help: str
    kohya: str  # its name there; empty where it is ours, or there is none
    kind: str
    choices: list[str]
    unit: str
    low: float | None
    high: float | None
    step: float  # of the arrow keys; 0: by factors
    when: list[str]  # settings of which one must be on for this one to have an effect
    basic: bool  # one of those that everybody sees


class Wanted(BaseModel):
    """A search."""

    wanted: str


class FoundData(TypedDict):
    """What a search found, ready for JSON."""

    places: list[str]
    instead: list[str]  # what stands for the words here
    nearest: list[str]  # words that there are


def answers() -> list[Answer]:
    """The functions that the list's script calls."""

    def settings_search(asked: Wanted, tongue: str) -> FoundData:
        """The settings that are meant, by anyone's word."""
        labels = {place: setting_name(place, tongue) for place in SETTINGS}
        found = search(asked.wanted, labels)
        instead = [stands_for(one, tongue) for one in found.instead]
        return {"places": list(found.places), "instead": instead, "nearest": list(found.nearest)}

    return [answer(Wanted, settings_search)]


def stands_for(found: Instead, tongue: str) -> str:
    """What stands here for another program's word, as "xformers: Not needed: …" in this language."""
    key = f"elsewhere.{found.key}"
    return f"{found.word}: {say(tongue, key) if key in ENGLISH else found.text}"


def rows(tongue: str) -> list[RowData]:
    """Every setting in this language."""
    return [row(info, tongue) for info in SETTINGS.values()]


def row(info: SettingInfo, tongue: str) -> RowData:
    """One setting in this language."""
    return {
        "place": info.place,
        "id": element_id(info.place),
        "section": info.section,
        "label": setting_name(info.place, tongue),
        "help": on_page(help_of(info), tongue),
        "kohya": kohya_name(info.place),
        "kind": info.kind,
        "choices": list(info.choices),
        "unit": info.unit,
        "low": limit(info.bounds, "from", "above"),
        "high": limit(info.bounds, "to", "below"),
        "step": step_of(info),
        "when": list(info.when),
        "basic": info.level == "basic",
    }


def sections(tongue: str) -> dict[str, str]:
    """What each section is called, in order."""
    return {section: section_name(section, tongue) for section in SECTIONS}


def limit(bounds: Mapping[str, float], *names: str) -> float | None:
    """A setting's lowest or highest value, by the words for it."""
    return next((bounds[word] for word in names if word in bounds), None)


def step_of(info: SettingInfo) -> float:
    """By how much an arrow key changes a setting; 0: to the next of 1, 1.5, 2, 3, 5, 7 times a power of ten."""
    if info.kind == "number" and limit(info.bounds, "to") == RATES_UP_TO:
        return 0
    if info.unit == "px":
        return SIZE_STEP
    if info.kind == "number":
        return SHARE_STEP if info.unit == "share" else NUMBER_STEP
    return 1


def help_of(info: SettingInfo) -> str:
    """A setting's help and range; without kohya_ss's name for it, which stands beside the setting's own."""
    text = KOHYA.sub("", info.help)
    return " ".join(filter(None, [text, f"({info.range_text})" if info.range_text else ""]))


def element_id(place: str) -> str:
    """The HTML id of a setting's control."""
    return "setting-" + place.replace(".", "-").replace("_", "-")
