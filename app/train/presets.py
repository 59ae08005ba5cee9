"""The presets that the Train page offers."""

from html import escape

from app.kit.text import say
from trainer.contract.home import Home
from trainer.contract.presets import FOLDER, list_presets, load_preset, overlay
from trainer.contract.settings.config import TrainConfig

EXAMPLE = "pocket-style"


def preset_choices(home: Home) -> list[tuple[str, str]]:
    """The presets by name, the user's own first."""
    usable, _ = list_presets(home.presets, FOLDER)
    return [(preset.name, preset.name) for preset in usable]


def preset_for(home: Home, goal: str, present: str) -> str:
    """Returns the built-in preset of this goal nearest to the present one: by base model, else by family.

    For settings of any family it is Stable Diffusion 1.x's, the smallest.
    """
    usable, _ = list_presets(FOLDER)
    fitting = [one.name for one in usable if one.values.get("goal", "style") == goal]
    model = preset_config(home, present).model

    def nearness(name: str) -> tuple[bool, bool]:
        """How near a preset is, first what matters most."""
        own = preset_config(home, name).model
        family = "sd15" if model.family == "auto" else model.family
        return own.base_model == model.base_model, own.family == family

    return max(fitting, key=nearness)


def alike(home: Home, *presets: str) -> bool:
    """Whether presets are for the same models."""
    configs = [preset_config(home, preset) for preset in presets]
    return len({(config.model.family, config.dataset.resolution) for config in configs}) == 1


def intent_html(home: Home, preset: str, tongue: str) -> str:
    """The preset's one sentence, and its goal."""
    usable, _ = list_presets(home.presets, FOLDER)
    found = next((one for one in usable if one.name == preset), None)
    own = f" <em>{say(tongue, 'preset.own')}</em>" if found is not None and found.own else ""
    return f'<p class="quiet">{escape(found.intent)}{own}</p>' if found is not None else ""


def preset_config(home: Home, preset: str) -> TrainConfig:
    """A preset's settings over the defaults.

    Raises:
        TrainerError: There is none of that name, or it cannot be used.
    """
    return overlay({"preset": load_preset(preset, FOLDER, home.presets).values})[0]
