"""A project as one TOML file, to keep or to take to another computer; and back."""

import tomllib
from contextlib import suppress
from pathlib import Path

import tomlkit

from trainer.contract.errors import FileExists, InvalidSettings, UnknownPreset
from trainer.contract.files import atomic_write
from trainer.contract.home import Home
from trainer.contract.presets import FOLDER, list_presets
from trainer.contract.schema import all_settings
from trainer.contract.settings.config import validated
from trainer.contract.toml import BESIDE_SETTINGS, Values, read_settings
from trainer.contract.vocabulary import called_here
from trainer.projects.project import TOP, Entered, Project, entered_of


def exported(project: Project) -> str:
    """The project as TOML text that stands alone: the values of a preset of the user's own are written out.

    Raises:
        NotOurs: A link or no plain file lies in its place.
        NewerVersion: A later version of this program wrote it.
    """
    entered = project.read()
    builtin = {preset.name for preset in list_presets(FOLDER)[0]}
    values = dict(entered.values)
    if entered.preset and entered.preset not in builtin:
        with suppress(UnknownPreset):  # it is gone: its name is all that is left
            values = {**entered_of(next(iter(project.layers().values()))).values, **values}
            del values["preset"]
    return f"name = {tomlkit.item(project.name).as_string()}\n{Entered(values).toml()}"


def export_to(project: Project, target: Path) -> None:
    """Write the project to a new file.

    Raises:
        FileExists: There is one already.
        OSError: As the system reports it.
    """
    if target.exists():
        raise FileExists(path=target)
    atomic_write(target, exported(project).encode())


def import_project(home: Home, source: Path, name: str = "") -> Project:
    """A new project of a file: of an exported project, of a copied `project.toml`, or of any file of our settings.

    What was half entered stays so; images and models that are not on this computer are asked for when it is trained.

    Args:
        home: Where it is made.
        source: The file, which stays as it is.
        name: What it is called; else as the file says, or the file's own name.

    Raises:
        InvalidSettings: The file cannot be read, is no TOML, or holds a setting that does not exist.
        ForeignFile: It is another program's.
        NewerVersion: A later version of this program wrote it.
    """
    values = read_settings(source)
    return Project.create(home, name or str(values.get("name") or source.stem), known(values).values)


def entered_as_text(text: str) -> Entered:
    """What TOML text says that a person has edited.

    Raises:
        InvalidSettings: It is no TOML, or holds a setting that does not exist.
    """
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidSettings(f"The text is no TOML: {error}.", hint="Nothing was changed.") from None
    return known(values)


def known(values: Values) -> Entered:
    """What a file's values say, all of them settings that there are.

    Raises:
        InvalidSettings: One does not exist; the nearest that does is named.
        NewerVersion: They are of a format that is not known here.
    """
    entered = entered_of(values)
    places = {info.place for info in all_settings()}
    for place, value in entered.values.items():
        if place not in places and place not in TOP:
            section, _, key = place.rpartition(".")
            _refuse(key, {section: {key: value}})
    for key, value in values.items():
        if key not in {"project", *BESIDE_SETTINGS, *TOP} and not isinstance(value, dict):
            _refuse(key, {key: value})
    return entered


def _refuse(name: str, values: Values) -> None:
    """Refuse a setting that does not exist in our words, and say what stands here for another program's name."""
    try:
        validated(values)
    except InvalidSettings as error:
        hint = called_here(name) or error.hint
        raise InvalidSettings(error.message, hint=hint, places=error.places) from None
