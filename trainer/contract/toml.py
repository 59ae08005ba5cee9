"""Settings as TOML files, and settings that an older version wrote."""

import tomllib
from pathlib import Path
from typing import Any

import tomlkit

from trainer.contract.errors import InvalidSettings
from trainer.contract.settings.config import TrainConfig
from trainer.contract.settings.fields import Section
from trainer.contract.settings.outputs import PREVIEW_GRID_PX
from trainer.contract.units import size

Values = dict[str, Any]
MOST_BYTES = 1 << 20  # of a file of settings
# Names that earlier versions gave settings: in TOML files, flags, the API and runs to be resumed
RENAMED = {
    "dataset.protect": "dataset.prior_preservation",
    "dataset.protect_prompt": "dataset.class_prompt",
    "dataset.protect_pictures": "dataset.class_images",
    "dataset.protect_share": "dataset.class_share",
    "model.checkpointing": "model.gradient_checkpointing",
    "model.stream": "model.offload",
    "optimizer.schedule": "optimizer.lr_scheduler",
}
GONE = {"objective.mask_floor"}  # masked-out areas once learned a little


def read_toml(path: Path) -> Values:
    """A TOML file's values.

    Raises:
        InvalidSettings: Not there, not UTF-8, not TOML, or far too large.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise InvalidSettings(
                f"{path} holds more than {size(MOST_BYTES)}.", hint="Give a TOML file of settings; they take a few KB."
            )
        return renamed(tomllib.loads(content.decode("utf-8-sig").replace("\r\n", "\n")))  # Windows editors write a BOM
    except OSError as error:
        seen = error.strerror or type(error).__name__
        raise InvalidSettings(
            f"{path} cannot be read: {seen}.", hint="Give a file that exists and that you may read."
        ) from None
    except (ValueError, RecursionError) as error:  # what text can do
        raise InvalidSettings(f"{path} cannot be read: {error}.", hint="It must be a TOML file in UTF-8.") from None


def flat(config: TrainConfig) -> dict[str, Any]:
    """Every setting's value under its "section.setting" name, in declared order."""
    values: dict[str, Any] = {}
    for key, value in config:
        if isinstance(value, Section):
            values.update({f"{key}.{name}": inner for name, inner in value})
        else:
            values[key] = value
    return values


def to_toml(config: TrainConfig) -> str:
    """Returns the complete settings as TOML text, which `read_toml` reads back."""
    document = tomlkit.document()
    for key, value in config.model_dump(mode="json", exclude_none=True).items():  # TOML has no nothing
        document.add(key, tomlkit.item(value))
    return tomlkit.dumps(document)


def accepted_earlier(values: Values) -> Values:
    """Returns a run's values in today's ranges, where an earlier version let pass what no preview can have."""
    preview = values.get("preview")
    if not isinstance(preview, dict):
        return values
    sides = {key: size for key, size in preview.items() if key in ("width", "height") and isinstance(size, int)}
    return {**values, "preview": {**preview, **{key: size - size % PREVIEW_GRID_PX for key, size in sides.items()}}}


def renamed(values: dict[str, Any]) -> dict[str, Any]:
    """Returns values nested by section under their current names; if both names are given, the current one counts."""
    made = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    for old, new in [*RENAMED.items(), *((name, "") for name in GONE)]:
        section, name = old.split(".")
        if not isinstance(made.get(section), dict) or name not in made[section]:
            continue
        value = made[section].pop(name)
        if new:
            made[section].setdefault(new.split(".")[1], value)
    model = made.get("model")
    if isinstance(model, dict) and isinstance(model.get("gradient_checkpointing"), bool):  # a switch, before the levels
        model["gradient_checkpointing"] = "full" if model["gradient_checkpointing"] else "none"
    return made
