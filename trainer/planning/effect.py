"""Settings that somebody set and that change nothing, because what they belong to is off."""

import re
from collections.abc import Collection

from trainer.contract.schema import all_settings
from trainer.contract.settings.config import TrainConfig
from trainer.contract.wording import named, setting
from trainer.dataset.problems import Problem

PROMPT_OPTION = re.compile(r"(?<!\S)--(?:[nwhdlst]|am|cn|ctr)(?!\S)")  # as sd-scripts reads them in sample prompts


def prompt_options(config: TrainConfig) -> list[Problem]:
    """Returns a note if preview prompts hold options of sd-scripts, such as --n, which are read as words here."""
    options = dict.fromkeys(option for prompt in config.preview.prompts for option in PROMPT_OPTION.findall(prompt))
    if not options:
        return []
    places = ("negative_prompt", "width", "height", "seed", "guidance_scale", "steps")
    return [
        Problem(
            "without_effect",
            f"{', '.join(options)} in {named('preview.prompts')} have no effect: they are read as words.",
            f"Take them out, and set {', '.join(named(f'preview.{place}') for place in places)}.",
        )
    ]


def without_effect(config: TrainConfig, chosen: Collection[str]) -> list[Problem]:
    """Returns a note for each of the chosen settings, by "section.setting", that changes nothing."""
    found = []
    for info in all_settings():
        if info.place not in chosen or not info.when or any(_on(config, place) for place in info.when):
            continue
        needed = [place for place in info.when if place != "dataset.class_folders"]  # which is no setting
        shown = setting(info.place, _value(config, info.place))
        found.append(
            Problem(
                "without_effect",
                f"{shown} has no effect here.",
                f"It needs {' or '.join(map(named, needed))}, which {'is' if len(needed) == 1 else 'are'} off.",
            )
        )
    return found


def _value(config: TrainConfig, place: str) -> object:
    section, name = place.split(".")
    value: object = getattr(getattr(config, section), name)
    return value


def _on(config: TrainConfig, place: str) -> bool:
    return bool(_value(config, place))
