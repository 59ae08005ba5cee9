"""The presets that the page offers, as people call them."""

from typing import TypedDict

from app.kit.text import say
from trainer.contract.home import Home
from trainer.contract.presets import FOLDER, for_images, list_presets, load_preset, overlay
from trainer.contract.settings.config import TrainConfig

EXAMPLE = "pocket-style"
# The presets' base models, as their files' names begin
MODELS = {
    "sdxl": "SDXL",
    "pony": "Pony",
    "illustrious": "Illustrious",
    "noobai": "NoobAI",
    "sd15": "SD 1.5",
    "sd2": "SD 2.1",
    "pocket": "",
}


class PresetGroup(TypedDict):
    """The presets for one base model, ready for JSON."""

    label: str
    presets: list[tuple[str, str]]  # name, and what it is called


def preset_groups(home: Home, tongue: str) -> list[PresetGroup]:
    """The presets as people look for them: the user's own, then by base model, the toy model's last."""
    own, builtin = list_presets(home.presets)[0], list_presets(FOLDER)[0]
    made: dict[str, PresetGroup] = {}
    if own:
        made[""] = {"label": say(tongue, "preset.heading"), "presets": [(one.name, one.name) for one in own]}
    for one in builtin:
        model, _, goal = one.name.partition("-")
        group = made.setdefault(model, {"label": model_title(model, tongue), "presets": []})
        group["presets"].append((one.name, f"{group['label']} · {say(tongue, f'goal.{goal}')}"))
    return [made[model] for model in sorted(made, key=order_of)]


def order_of(preset: str) -> int:
    """Where a preset stands among others, by its model: the user's own first, the toy model's last."""
    model = preset.partition("-")[0]
    return list(MODELS).index(model) if model in MODELS else -1


def preset_titles(home: Home, tongue: str) -> list[tuple[str, str]]:
    """What each preset is called, and its name."""
    return [(title, name) for group in preset_groups(home, tongue) for name, title in group["presets"]]


def preset_title(home: Home, preset: str, tongue: str) -> str:
    """What a preset is called: "SDXL · Character"; the user's own by its name."""
    return next((title for title, name in preset_titles(home, tongue) if name == preset), preset)


def model_title(model: str, tongue: str) -> str:
    """What the presets' base model is called."""
    return MODELS[model] or say(tongue, "model.toy_short")


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


def intent_of(home: Home, preset: str, tongue: str) -> str:
    """The preset's one sentence, and whether it is the user's own."""
    usable, _ = list_presets(home.presets, FOLDER)
    found = next((one for one in usable if one.name == preset), None)
    own = f" {say(tongue, 'preset.own')}" if found is not None and found.own else ""
    return f"{found.intent}{own}" if found is not None else ""


def preset_config(home: Home, preset: str, images: str = "") -> TrainConfig:
    """A preset's settings over the defaults, for these images; it says more of its own.

    Raises:
        TrainerError: There is none of that name, or it cannot be used.
    """
    return overlay({"preset": for_images(load_preset(preset, FOLDER, home.presets).values, images)})[0]
