"""Presets: small TOML files that say only what differs from the defaults; and where each value came from."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from trainer.contract.errors import InvalidSettings, UnknownPreset
from trainer.contract.home import CHECKOUT
from trainer.contract.settings import SECTIONS, TrainConfig, validated

FOLDER = CHECKOUT / "presets"
Values = dict[str, Any]


@dataclass(frozen=True)
class Preset:
    """A named starting point: one sentence of intent, and the values it sets."""

    name: str
    intent: str
    values: Values


def list_presets(folder: Path = FOLDER) -> list[Preset]:
    """All presets, by name."""
    return [load_preset(path.stem, folder) for path in sorted(folder.glob("*.toml"))]


def load_preset(name: str, folder: Path = FOLDER) -> Preset:
    """One preset, read and validated.

    Raises:
        UnknownPreset: Nothing of that name.
        InvalidSettings: The file holds a setting that does not exist or is out of range.
    """
    known = sorted(path.stem for path in folder.glob("*.toml"))
    if name not in known:
        raise UnknownPreset(name, known)
    values = read_toml(folder / f"{name}.toml")
    intent = str(values.pop("intent", ""))
    validated(values)
    return Preset(name, intent, {"preset": name, **values})


def read_toml(path: Path) -> Values:
    """A TOML file's values.

    Raises:
        InvalidSettings: Not there, not UTF-8, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows editors put a mark at the start
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidSettings(f"{path} cannot be read: {error}.", hint="It must be a TOML file in UTF-8.") from None


def overlay(layers: Mapping[str, Values]) -> tuple[TrainConfig, dict[str, str]]:
    """Put layers of values over the defaults, later ones winning.

    Args:
        layers: Values by the layer's name, weakest first, for example {"preset pocket-style": …, "flag": …}.

    Returns:
        The settings, and for each "section.setting" the name of the layer that set it ("default" where none did).

    Raises:
        InvalidSettings: The result is not valid.
    """
    merged: Values = {}
    origins: dict[str, str] = {}
    for layer, values in layers.items():
        for key, value in values.items():
            if key in SECTIONS and not isinstance(value, dict):
                validated({key: value})  # refuses it in our words, before a later layer could hide it
            elif key in SECTIONS:
                merged[key] = {**merged.get(key, {}), **value}
                origins.update({f"{key}.{name}": layer for name in value})
            else:
                merged[key] = value
                origins[key] = layer
    config = validated(merged)
    return config, {place: origins.get(place, "default") for place in flat(config)}


def flat(config: TrainConfig) -> dict[str, Any]:
    """Every setting's value under its "section.setting" name, in declared order."""
    values: dict[str, Any] = {}
    for key, value in config.model_dump().items():
        if isinstance(value, dict):
            values.update({f"{key}.{name}": inner for name, inner in value.items()})
        else:
            values[key] = value
    return values


def to_toml(config: TrainConfig) -> str:
    """The complete settings as TOML text; `read_toml` of it gives the same settings."""
    document = tomlkit.document()
    for key, value in config.model_dump(mode="json").items():
        document.add(key, tomlkit.item(value))
    return tomlkit.dumps(document)
