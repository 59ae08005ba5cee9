"""Command-line flags made from the settings: `--section.setting value`, with help, range and unit."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from trainer.contract.errors import InvalidSettings
from trainer.contract.schema import SettingInfo, all_settings
from trainer.contract.settings.config import SECTIONS
from trainer.contract.toml import RENAMED
from trainer.runs.process import Group

DESCRIPTION = "Train a LoRA from a folder of images. `launch.py test` runs the tests."

METAVARS = {"switch": "true|false", "whole": "N", "number": "X", "text": "TEXT", "texts": "TEXT", "choice": "TEXT"}


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong flag is one of our errors."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting with a usage text."""
        raise InvalidSettings(
            f"{message[:1].upper()}{message[1:]}.", hint="`python launch.py --help` lists every flag."
        )


def make_parser() -> argparse.ArgumentParser:
    """All flags, grouped as the settings are."""
    parser = Parser(
        prog="launch.py",
        description=DESCRIPTION,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--preset", metavar="NAME", help="Starting point; see --list-presets.")
    parser.add_argument("--images", metavar="DIR", help="Folder with images; short for --dataset.images.")
    parser.add_argument("--name", metavar="X", help="Name of the LoRA file; short for --output.name.")
    parser.add_argument("--base-model", metavar="P", help="Base model; short for --model.base_model.")
    parser.add_argument("--memory-limit", metavar="GIB", help="Take no more memory; short for --model.memory_limit.")
    parser.add_argument("--config", metavar="FILE", type=Path, help="TOML file of settings, between preset and flags.")
    parser.add_argument(
        "--home", metavar="DIR", type=Path, help="Folder for runs and caches (else ATELIER_HOME, else here)."
    )
    parser.add_argument(
        "--queue", action="store_true", help="Train in the background, after the runs that were started before."
    )
    does = parser.add_argument_group("instead of training")
    does.add_argument("--list-presets", action="store_true", help="Name the presets and what each is for.")
    does.add_argument("--models", action="store_true", help="List the base models that are on this computer.")
    does.add_argument(
        "--check", action="store_true", help="Validate, show every setting with its origin; train nothing."
    )
    does.add_argument(
        "--caption", metavar="DIR", help="Caption the images of a folder; `--caption DIR --help` tells how."
    )
    does.add_argument("--resume", metavar="RUN", help="Go on with a run (its name or folder) from its last checkpoint.")
    _add_doctor(parser)
    _add_several(parser)
    groups = {
        section: parser.add_argument_group(section, (fields.__doc__ or "").strip())
        for section, fields in SECTIONS.items()
    }
    for info in all_settings():
        groups[info.section].add_argument(
            f"--{info.place}",
            dest=info.place,
            default=argparse.SUPPRESS,
            nargs="*" if info.kind == "texts" else None,
            metavar="|".join(info.choices) or METAVARS[info.kind],
            help=_help(info).replace("%", "%%"),
        )
    for old, new in RENAMED.items():
        parser.add_argument(f"--{old}", dest=new, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    """The flags that look after an image folder, which itself is only read."""
    doctor = parser.add_argument_group("an image folder", "looked at and mended; the folder itself is never changed")
    doctor.add_argument(
        "--doctor", metavar="DIR", help="Tell what is wrong with its images and captions, for --preset or a setting."
    )
    doctor.add_argument(
        "--fix",
        metavar="CODE",
        nargs="+",
        action="extend",
        help="With --doctor: mend these findings; --undo takes it back.",
    )
    doctor.add_argument("--undo", action="store_true", help="With --doctor: take the last change back.")
    doctor.add_argument(
        "--export-dataset", metavar="DIR", help="Copy what is trained of it, mended, to another folder."
    )
    doctor.add_argument("--to", metavar="NEW", help="With --export-dataset: the new folder.")


def _add_several(parser: argparse.ArgumentParser) -> None:
    """The flags by which several processes train one run."""
    parser.add_argument(
        "--processes",
        dest="model.processes",
        default=argparse.SUPPRESS,
        metavar="N",
        help="Train with N processes; short for --model.processes, and with --resume another number than before.",
    )
    several = parser.add_argument_group("several computers", "the same command on each, but for --machine-rank")
    several.add_argument("--machines", metavar="N", type=int, default=1, help="How many computers train together.")
    several.add_argument("--machine-rank", metavar="K", type=int, default=0, help="Which of them this is: 0, 1, …")
    several.add_argument("--main-address", metavar="HOST:PORT", default="", help="Where the others reach number 0.")


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Only the settings the user named, nested by section."""
    values: dict[str, dict[str, Any]] = {}
    short = {
        "images": "dataset.images",
        "name": "output.name",
        "base_model": "model.base_model",
        "memory_limit": "model.memory_limit",
    }
    named = {short[key]: value for key, value in vars(arguments).items() if key in short and value is not None}
    for place, value in {**named, **{k: v for k, v in vars(arguments).items() if "." in k}}.items():
        section, name = place.split(".", 1)
        values.setdefault(section, {})[name] = value
    return values


def given_group(arguments: argparse.Namespace, processes: int, own: int) -> Group:
    """The processes that train, on this computer and on those that the flags tell of.

    Args:
        arguments: The flags.
        processes: On each computer.
        own: What the run's settings say; a run that waits its turn is started with that many.

    Raises:
        InvalidSettings: The flags for several computers do not fit together, or the queue is to start another number.
    """
    group = Group(processes, arguments.machines, arguments.machine_rank, arguments.main_address)
    host, _, port = group.address.rpartition(":")
    if not 0 <= group.machine < group.machines or (group.machines > 1) != bool(host and port.isdecimal()):
        raise InvalidSettings(
            f"--machines {group.machines}, --machine-rank {group.machine} and --main-address "
            f'"{group.address}" do not fit together.',
            hint="Of 2 computers the first takes --machines 2 --machine-rank 0 --main-address ITS-NAME:29500, "
            "the other the same with --machine-rank 1.",
        )
    if arguments.queue and group != Group(own):
        raise InvalidSettings(
            f"A run that waits its turn keeps its number of processes ({own}), on one computer.",
            hint="Leave out --queue, or --machines and --processes.",
        )
    return group


def _help(info: SettingInfo) -> str:
    """Help text with range, unit and default."""
    shown = ("true" if info.default else "false") if info.kind == "switch" else info.default
    notes = [info.range_text, f"default {shown}" if shown not in ("", ()) else ""]
    return f"{info.help} ({'; '.join(filter(None, notes))})" if any(notes) else info.help
