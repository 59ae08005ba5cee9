"""Presets: small TOML files that say only what differs from the defaults; and where each value came from."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tomlkit

from trainer.contract.errors import FileExists, InvalidSettings, UnknownPreset
from trainer.contract.files import atomic_write
from trainer.contract.home import CHECKOUT
from trainer.contract.ours import NotOurs, check
from trainer.contract.pasted import bare, pasted
from trainer.contract.settings.config import SECTIONS, TrainConfig, validated
from trainer.contract.settings.fields import plain_file_name
from trainer.contract.toml import Values, flat, read_settings

FOLDER = CHECKOUT / "presets"
# Not saved in a preset
OF_ONE_RUN = {
    "dataset.images",
    "dataset.captions",
    "dataset.concepts",
    "adapter.start_from",
    "output.name",
    "model.device",
    "model.processes",
}


# What a preset with images of its own says of them, which means nothing for others
OF_ITS_IMAGES = {"dataset": ("trigger_word",), "preview": ("prompts",)}


@dataclass(frozen=True)
class Preset:
    """A named starting point: one sentence of intent, and the values it sets."""

    name: str
    intent: str
    values: Values
    path: Path

    @property
    def own(self) -> bool:
        """Whether the user made it."""
        return self.path.parent != FOLDER


def list_presets(*folders: Path) -> tuple[list[Preset], list[InvalidSettings]]:
    """All presets of these folders, by folder and name, and what is wrong with those that cannot be used."""
    usable, broken = [], []
    for path in _files(folders):
        try:
            usable.append(_listed(path))
        except InvalidSettings as error:
            broken.append(error)
    return usable, broken


def load_preset(name: str, *folders: Path) -> Preset:
    """One preset, read and validated; the first folder that has it wins.

    Raises:
        UnknownPreset: Nothing of that name.
        InvalidSettings: The file holds a setting that does not exist or is out of range.
    """
    return _listed(_path_of(name, folders))


def save_preset(folder: Path, name: str, config: TrainConfig, intent: str, replace: bool = False) -> Preset:
    """Save settings as the user's preset: what differs from the defaults, except what belongs to one run.

    Raises:
        InvalidSettings: Not a name for a file, or a built-in preset's.
        FileExists: There is one already, and `replace` is off.
    """
    path = _free_path(folder, name, replace)
    usual, values = validated({}).model_dump(mode="json"), config.model_dump(mode="json")
    document: Values = {"intent": intent, "goal": values["goal"]}
    for section in SECTIONS:
        changed = {
            key: value
            for key, value in values[section].items()
            if value != usual[section][key] and f"{section}.{key}" not in OF_ONE_RUN
        }
        if changed:
            document[section] = changed
    atomic_write(path, tomlkit.dumps(document).encode())
    return _read(path)


def import_preset(folder: Path, source: Path) -> Preset:
    """Import a preset file under its own name: validate it, then copy it unchanged.

    Raises:
        InvalidSettings: Not a preset, not a name, or a built-in preset's name.
        FileExists: There is one of that name already.
    """
    path = _free_path(folder, source.stem, replace=False)
    _read(source)
    atomic_write(path, source.read_bytes())
    return _read(path)


def rename_preset(folder: Path, old: str, new: str) -> Preset:
    """Rename one of the user's presets.

    Raises:
        UnknownPreset: The user has none called `old`.
        InvalidSettings: Not a name for a file, or a built-in preset's.
        FileExists: `new` is taken.
    """
    return _read(_path_of(old, [folder]).rename(_free_path(folder, new, replace=False)))


def delete_preset(folder: Path, name: str) -> None:
    """Remove one of the user's presets.

    Raises:
        UnknownPreset: The user has none of that name; built-in presets stay.
    """
    _path_of(name, [folder]).unlink()


def _files(folders: Sequence[Path]) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.glob("*.toml"))]


def _path_of(name: str, folders: Sequence[Path]) -> Path:
    """The preset's file, found among those that are there, so that no name leads elsewhere."""
    files = _files(folders)
    for path in files:
        if path.stem in (name, _stem(name)):
            return path
    raise UnknownPreset(name=name, known=", ".join(path.stem for path in files))


def _stem(name: str) -> str:
    """The name without what was pasted around it, and without a file's ending."""
    return re.sub(r"(?:\.toml|[. ])+$", "", bare(name), flags=re.IGNORECASE)


def _free_path(folder: Path, name: str, replace: bool) -> Path:
    """Where a preset of this name is written."""
    name = _stem(name)
    try:
        plain_file_name(name)
    except ValueError as error:
        raise InvalidSettings(f"The preset's name {name!r} {error}.", hint="Choose another name.") from None
    if not name or any(path.stem.casefold() == name.casefold() for path in _files([FOLDER])):
        raise InvalidSettings(f"{name!r} cannot be the name of your own preset.", hint="Choose another name.")
    path = folder / f"{name}.toml"
    if path.exists() and not replace:
        raise FileExists(path=path)
    return path


def _listed(path: Path) -> Preset:
    """A preset from a folder of presets, where a pipe would never answer."""
    try:
        check(path)
    except NotOurs as error:
        raise InvalidSettings(error.message, hint=error.hint) from None
    return _read(path)


def _read(path: Path) -> Preset:
    values = read_settings(path)
    intent = str(values.pop("intent", ""))
    try:
        validated(values)
    except InvalidSettings as error:
        raise InvalidSettings(f"The preset {path} cannot be used. {error.message}", hint=error.hint) from None
    images = values.get("dataset", {}).get("images")
    if images and path.parent == FOLDER:  # a built-in preset's demo images lie in the checkout
        values["dataset"] = {**values["dataset"], "images": str(CHECKOUT / images)}
    return Preset(path.stem, intent, {"preset": path.stem, **values}, path)


def for_images(values: Values, images: str) -> Values:
    """A preset's values for a folder of images: for others than its own, without trigger word and preview prompts.

    Args:
        values: The preset's, nested by section.
        images: The folder that is trained, as it was written; empty: the preset's own, if it has any.
    """
    own = values.get("dataset", {}).get("images")
    if not own or not images.strip() or _absolute(images) == _absolute(own):
        return values
    kept = dict(values)
    for section, names in OF_ITS_IMAGES.items():
        if section in kept:
            kept[section] = {name: value for name, value in kept[section].items() if name not in names}
    return kept


def _absolute(written: str) -> str:
    return os.path.abspath(os.path.expanduser(pasted(written)))  # noqa: PTH100, PTH111 - whatever was written


def overlay(layers: Mapping[str, Values]) -> tuple[TrainConfig, dict[str, str]]:
    """Put layers of values over the defaults, later ones winning.

    Args:
        layers: Values by the layer's name, weakest first, for example {"preset pocket-style": …, "flag": …}; of a
            preset only what is meant `for_images` of a later layer.

    Returns:
        The settings, and for each "section.setting" the name of the layer that set it ("default" where none did).

    Raises:
        InvalidSettings: The result is not valid.
    """
    merged: Values = {}
    origins: dict[str, str] = {}
    folders = [values["dataset"].get("images") for values in layers.values() if isinstance(values.get("dataset"), dict)]
    images = next((folder for folder in reversed(folders) if isinstance(folder, str)), "")
    for layer, given in layers.items():
        values = for_images(given, images) if layer.startswith("preset") else given
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
