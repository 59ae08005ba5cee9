"""Command-line flags made from the settings: `--section.setting value`, with help, range and unit."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin

from pydantic.fields import FieldInfo

from trainer.contract.errors import InvalidSettings
from trainer.contract.settings import SECTIONS

DESCRIPTION = "Train a LoRA from a folder of pictures. `launch.py test` runs the tests."


class _Parser(argparse.ArgumentParser):
    """argparse, but a wrong flag is one of our errors."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting with a usage text."""
        raise InvalidSettings(
            f"{message[:1].upper()}{message[1:]}.", hint="`python launch.py --help` lists every flag."
        )


def make_parser() -> argparse.ArgumentParser:
    """All flags, grouped as the settings are."""
    parser = _Parser(
        prog="launch.py",
        description=DESCRIPTION,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--preset", metavar="NAME", help="Starting point; see --list-presets.")
    parser.add_argument("--images", metavar="DIR", help="Folder with pictures; short for --dataset.images.")
    parser.add_argument("--name", metavar="X", help="Name of the LoRA file; short for --output.name.")
    parser.add_argument("--base-model", metavar="P", help="Base model; short for --model.base_model.")
    parser.add_argument("--config", metavar="FILE", type=Path, help="TOML file of settings, between preset and flags.")
    parser.add_argument(
        "--home", metavar="DIR", type=Path, help="Folder for runs and caches (else ATELIER_HOME, else here)."
    )
    parser.add_argument(
        "--queue", action="store_true", help="Train in the background, after the runs that were started before."
    )
    does = parser.add_argument_group("instead of training")
    does.add_argument("--list-presets", action="store_true", help="Name the presets and what each is for.")
    does.add_argument(
        "--check", action="store_true", help="Validate, show every setting with its origin; train nothing."
    )
    does.add_argument("--resume", metavar="RUN", help="Go on with a run (its name or folder) from its last checkpoint.")
    for section, fields in SECTIONS.items():
        group = parser.add_argument_group(section, (fields.__doc__ or "").strip())
        for name, field in fields.model_fields.items():
            several = get_origin(field.annotation) is tuple
            group.add_argument(
                f"--{section}.{name}",
                dest=f"{section}.{name}",
                default=argparse.SUPPRESS,
                nargs="*" if several else None,
                metavar=_metavar(field),
                help=_help(field).replace("%", "%%"),
            )
    return parser


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Only the settings the user named, nested by section."""
    values: dict[str, dict[str, Any]] = {}
    short = {"images": "dataset.images", "name": "output.name", "base_model": "model.base_model"}
    named = {short[key]: value for key, value in vars(arguments).items() if key in short and value is not None}
    for place, value in {**named, **{k: v for k, v in vars(arguments).items() if "." in k}}.items():
        section, name = place.split(".", 1)
        values.setdefault(section, {})[name] = value
    return values


def _metavar(field: FieldInfo) -> str:
    choices = get_args(field.annotation)
    if choices and all(isinstance(choice, str) for choice in choices):
        return "|".join(choices)
    if get_origin(field.annotation) is tuple:
        return "TEXT"
    return {bool: "true|false", int: "N", float: "X"}.get(field.annotation, "TEXT")  # type: ignore[arg-type]


def _help(field: FieldInfo) -> str:
    """Help text with range, unit and default."""
    limits = {type(entry).__name__: entry for entry in field.metadata}
    bounds = []
    for kind, word in (("Ge", "from"), ("Gt", "above"), ("Le", "to"), ("Lt", "below")):
        if kind in limits:
            limit = getattr(limits[kind], kind.lower())
            bounds.append(f"{word} {limit if isinstance(limit, int) else format(limit, 'g')}")
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    unit = f" {extra['unit']}" if extra.get("unit") else ""
    default = field.default
    shown = ("true" if default else "false") if isinstance(default, bool) else default
    notes = [" ".join(bounds) + unit if bounds else "", f"default {shown}" if shown not in ("", ()) else ""]
    return f"{field.description} ({'; '.join(filter(None, notes))})" if any(notes) else str(field.description)
