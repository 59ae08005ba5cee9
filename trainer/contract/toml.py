"""Settings as TOML files, and settings that an older version wrote."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import tomlkit

from trainer.contract.errors import InvalidSettings
from trainer.contract.settings.config import TrainConfig
from trainer.contract.settings.fields import Section
from trainer.contract.settings.renamed import renamed

Values = dict[str, Any]


def read_toml(path: Path) -> Values:
    """A TOML file's values.

    Raises:
        InvalidSettings: Not there, not UTF-8, or not TOML.
    """
    try:
        return renamed(tomllib.loads(path.read_text(encoding="utf-8-sig")))  # Windows editors put a mark at the start
    except OSError as error:
        seen = error.strerror or type(error).__name__
        raise InvalidSettings(
            f"{path} cannot be read: {seen}.", hint="Give a file that is there and yours to read."
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
    """The complete settings as TOML text; `read_toml` of it gives the same settings."""
    document = tomlkit.document()
    for key, value in config.model_dump(mode="json", exclude_none=True).items():  # TOML has no nothing
        document.add(key, tomlkit.item(value))
    return tomlkit.dumps(document)
