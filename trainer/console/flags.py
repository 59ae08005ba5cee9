"""What the commands' flags share: errors with the nearest flag, `--home`, and a flag for every setting."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Collection, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from trainer.contract.errors import InvalidSettings, UnknownPreset
from trainer.contract.home import Home
from trainer.contract.pasted import bare, path_of
from trainer.contract.presets import FOLDER, load_preset, overlay
from trainer.contract.schema import SettingInfo, all_settings
from trainer.contract.settings.config import SECTIONS, TrainConfig
from trainer.contract.toml import BESIDE_SETTINGS, RENAMED, Values, read_settings
from trainer.contract.vocabulary import Found, search
from trainer.contract.wording import action, setting
from trainer.projects.project import Project

Flags = dict[str, Any]  # what the user typed and nothing else, by the flags' names with _ for -

PROGRAM = "python launch.py"
PAGE_FLAGS = {"--home", "--port", "--listen", "--allow-host", "--password-file", "--no-browser"}
METAVARS = {"switch": "true|false", "whole": "N", "number": "X", "text": "TEXT", "texts": "TEXT", "choice": "TEXT"}
SHORT = {
    "images": "dataset.images",
    "name": "output.name",
    "base_model": "model.base_model",
    "vae": "model.vae",
    "memory_limit": "model.memory_limit",
}


class Parser(argparse.ArgumentParser):
    """A command's flags; a wrong one is one of our errors and names the nearest right one."""

    def __init__(self, command: str, usage: str, about: str, *add_flags: Callable[[Parser], None]) -> None:
        """Make the flags of a command, of an empty name for those that need none."""
        super().__init__(
            usage=f"{PROGRAM} {command} {usage} [flags]".replace("  ", " "),
            description=about,
            allow_abbrev=False,
            add_help=False,
            argument_default=argparse.SUPPRESS,
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=28),
        )
        self._command = command
        for add in add_flags:
            add(self)
        self.add_argument("--home", metavar="DIR", type=path_of, help="Folder for runs and caches (else ATELIER_HOME).")
        self.add_argument("-h", "--help", action="help", help="Show this help.")

    def flags(self, arguments: Sequence[str]) -> Flags:
        """Returns what the user set.

        Raises:
            InvalidSettings: An unknown flag, a value missing, or a word too many.
        """
        found, unknown = self.parse_known_args(arguments)
        if unknown:
            word = next((word for word in unknown if word.startswith("-")), unknown[0]).partition("=")[0]
            what = f"there is no flag {as_mark(word)}" if word.startswith("-") else f"unexpected argument: {word}"
            self.error(what, word)
        return vars(found)

    def error(self, message: str, word: str = "") -> NoReturn:
        """Raise instead of exiting with a usage text."""
        if word in PAGE_FLAGS:
            hint = "It is a flag of the page, which opens where no other flags are given. "
        else:
            known = [*self._option_string_actions, *("" if self._command else PAGE_FLAGS)]
            hint = elsewhere(word, known) or did_you_mean(word, known)
        hint += f"{action('flags', self._command or 'train')}."
        raise InvalidSettings(f"{message[:1].upper()}{message[1:]}.", hint=hint)


BESIDE_FLAGS = ("preset", "config", "project")  # of our own, beside those of the settings


def did_you_mean(word: str, known: Collection[str]) -> str:
    """Returns "Did you mean train? " for a misspelt word, nothing where none is near."""
    close = get_close_matches(word, [one for one in known if one != word], n=1)
    return f"Did you mean {as_mark(close[0])}? " if close else ""


def elsewhere(flag: str, known: Collection[str]) -> str:
    """Returns what a flag of another program is called here, or what stands for it; else nothing."""
    others = flag.startswith("--") and flag.removeprefix("--") not in {*SHORT, *BESIDE_FLAGS}
    found = search(flag) if others else Found()
    if found.exact and f"--{found.places[0]}" in known:
        return f"Here that is {setting(found.places[0])}. "
    return "".join(f"{one.text} " for one in found.instead)


def as_mark(word: str) -> str:
    """Returns a flag as the mark of a setting, so that Help shows no dashes; other words as they are."""
    return setting(word.removeprefix("--")) if word.startswith("--") else word


def no_flags(_parser: Parser) -> None:
    """Add nothing to the flags that all commands have."""


def add_settings(parser: Parser, *, listed: bool) -> None:
    """Add `--preset`, `--config` and a flag for every setting.

    Args:
        parser: A command's flags.
        listed: Whether the command's help lists the settings, by section.
    """

    def _text(help_text: str) -> str:
        return help_text.replace("%", "%%") if listed else argparse.SUPPRESS

    add = parser.add_argument
    add("--preset", metavar="NAME", type=bare, help=f"Starting point; `{PROGRAM} presets` lists them.")
    add("--images", metavar="DIR", help=_text("Folder of images; short for --dataset.images."))
    add("--name", metavar="X", help=_text("Name of the LoRA file; short for --output.name."))
    add("--base-model", metavar="P", help=_text("Base model; short for --model.base_model."))
    add("--vae", metavar="P", help=_text("VAE to use instead of the model's own; short for --model.vae."))
    add("--memory-limit", metavar="GIB", help=_text("Use no more memory; short for --model.memory_limit."))
    add("--config", metavar="FILE", type=path_of, help="TOML file of settings, between preset and flags.")
    for section, fields in SECTIONS.items():
        group = parser.add_argument_group(section, (fields.__doc__ or "").strip()) if listed else parser
        for info in (info for info in all_settings() if info.section == section):
            group.add_argument(
                f"--{info.place}",
                dest=info.place,
                nargs="*" if info.kind == "texts" else None,
                metavar="|".join(info.choices) or METAVARS[info.kind],
                help=_text(_help(info)),
            )
    for old, new in RENAMED.items():
        add(f"--{old}", dest=new, help=argparse.SUPPRESS)


def given_settings(flags: Flags) -> dict[str, Any]:
    """Returns only the settings the user named, nested by section; a full name overrides a short one."""
    values: dict[str, dict[str, Any]] = {}
    for name, value in sorted(flags.items(), key=lambda flag: "." in flag[0]):
        section, _, key = SHORT.get(name, name).partition(".")
        if key:
            values.setdefault(section, {})[key] = value
    return values


def given(flags: Flags, home: Home) -> tuple[TrainConfig, dict[str, str]]:
    """Returns the settings of preset, file and flags, whether or not a run can use them, and where each came from.

    Raises:
        InvalidSettings: A value that is not allowed.
    """
    layers: dict[str, Values] = {}
    if flags.get("preset"):
        layers[f"preset {flags['preset']}"] = _preset(flags["preset"], home)
    if flags.get("project"):
        layers = Project.named(home, flags["project"]).layers(flags.get("preset", ""))
    if flags.get("config"):
        values = read_settings(flags["config"])
        for name in BESIDE_SETTINGS:
            values.pop(name, None)
        layers[f"file {flags['config'].name}"] = values
    layers["flag"] = given_settings(flags)
    return overlay(layers)


def _preset(name: str, home: Home) -> Values:
    """The values of a preset; a file given in its place is refused as what it is."""
    try:
        return load_preset(name, FOLDER, home.presets).values
    except UnknownPreset:
        if not os.path.isfile(name):  # noqa: PTH113 - unlike Path's own it says no to a name that none can have
            raise
    read_settings(Path(name))  # refuses another program's by its name
    raise InvalidSettings(f"{name} is a file, not the name of a preset.", hint=f"Give it as {action('config')}.")


def _help(info: SettingInfo) -> str:
    """Returns the help text with range, unit and default."""
    shown = ("true" if info.default else "false") if info.kind == "switch" else info.default
    notes = [info.range_text, f"default {shown}" if shown not in ("", ()) else ""]
    return f"{info.help} ({'; '.join(filter(None, notes))})" if any(notes) else info.help
