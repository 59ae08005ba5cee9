"""Settings as TOML files, and settings that an older version wrote."""

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomlkit

from trainer.contract.errors import InvalidSettings
from trainer.contract.foreign import ForeignFile, Kind, kind_of_bytes, kind_of_text
from trainer.contract.pasted import bare
from trainer.contract.settings.config import SECTIONS, TrainConfig
from trainer.contract.settings.fields import Section
from trainer.contract.settings.outputs import PREVIEW_GRID_PX
from trainer.contract.units import size

Values = dict[str, Any]
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
MOST_BYTES = 1 << 22  # bytes of a file that can be settings; all that is read
BYTE_ORDER = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # as Windows PowerShell writes what is sent to a file
BESIDE_SETTINGS = ("intent", "format", "changes", "name")  # what a preset or a project says of itself
OURS = {*SECTIONS, "preset", "goal", "project", *BESIDE_SETTINGS}
QUOTED = re.compile(r'"((?:[^"\\\n]|\\.)*)"?')  # a text in double quotes, in which a backslash begins an escape
DRIVE = re.compile(r"[A-Za-z]:|\\\\(?!\\)|\.{1,2}\\")  # a path of Windows begins so
SINGLE = re.compile(r"(?<!\\)(?:\\\\)*\\(?!\\)")  # a backslash that is not doubled
CONTROL = re.compile(r"[\x01-\x1f]")
PATHS = {"images", "captions", "base_model", "vae", "start_from"}  # settings that are paths
BARE = re.compile(r"\s*([\w.-]+)\s*=\s*([^\s\"'\[{\d#][^\[{\"']*)\s*")  # a setting whose text is not in quotes
WORDS = {"true", "false", "yes", "no", "on", "off", "none", "null"}  # that people write for a choice, not for a text
LINE = re.compile(r"at line (\d+)")


def read_settings(path: Path) -> Values:
    r"""Returns the values of a TOML file that a person may have written.

    Raises:
        InvalidSettings: As `read_toml`, or a path of Windows in double quotes: TOML reads "D:\train\new" with a tab and
            a line end in it.
        ForeignFile: It is another program's, or none of settings.
    """
    values = read_toml(path)
    for read in _paths(values):
        if CONTROL.search(read) and not os.path.exists(read):  # noqa: PTH110 - says no to a name that none can have
            _refuse_escapes(path, _text(path), read)
    return values


def read_toml(path: Path) -> Values:
    """Returns a TOML file's values.

    Raises:
        InvalidSettings: Not there, too large, not UTF-8, or not TOML.
        ForeignFile: It is another program's, or none of settings.
    """
    text = _text(path)
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # what text can do
        _refuse_foreign(path, kind_of_text(text))
        line = LINE.search(str(error))
        wrong = text.split("\n")[int(line[1]) - 1] if line else ""
        _refuse_escapes(path, wrong)
        _refuse_bare(path, wrong)
        raise InvalidSettings(f"{path} cannot be read: {error}.", hint="It must be a TOML file in UTF-8.") from None
    if not OURS.issuperset(values):
        _refuse_foreign(path, kind_of_text(text))
    return renamed(values)


def _text(path: Path) -> str:
    """The text of a file; Windows' editors write a byte order mark."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        seen = error.strerror or type(error).__name__
        raise InvalidSettings(
            f"{path} cannot be read: {seen}.", hint="Give a file that exists and that you may read."
        ) from None
    coding = BYTE_ORDER.get(content[:2], "utf-8-sig")
    if coding == "utf-8-sig":
        _refuse_foreign(path, kind_of_bytes(content))
    if len(content) > MOST_BYTES:
        large = f"{path} holds more than {size(MOST_BYTES)}."
        raise InvalidSettings(large, hint="Give a TOML file of settings; they take a few KB.")
    try:
        return content.decode(coding).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line, byte = content[: error.start].count(b"\n") + 1, content[error.start]
        seen = f"{path} is not in UTF-8: line {line} has the byte 0x{byte:02x}."
        raise InvalidSettings(seen, hint="Save it in UTF-8 with your editor.") from None


def _refuse_foreign(path: Path, kind: Kind | None) -> None:
    if kind is not None:
        raise ForeignFile(path=path, kind=kind.kind, seen=kind.seen, helps=kind.helps)


def _refuse_escapes(path: Path, text: str, read: str | None = None) -> None:
    """Refuse a path of Windows in double quotes.

    Args:
        path: The file.
        text: Its text, or the line that is no TOML.
        read: What TOML reads of the path, if it does.
    """
    for found in QUOTED.finditer(text):
        written = found[1]
        if _unescaped(written) == read if read else DRIVE.match(written) and SINGLE.search(written):
            meant = written.rstrip('"')  # which a backslash at the end makes a part of the text
            slashes = ("//" if meant.startswith("\\\\") else "") + re.sub(r"\\+", "/", meant).lstrip("/")
            single = slashes.replace("/", "\\")
            raise InvalidSettings(
                f"{path} has a path in double quotes, where a backslash begins an escape: {found[0]}.",
                hint=f"Write it in single quotes, '{single}', or with forward slashes, \"{slashes}\".",
            )


def _refuse_bare(path: Path, line: str) -> None:
    """Refuse a text without quotes, or with those of a word processor."""
    found = BARE.fullmatch(line)
    meant = bare(found[2]) if found else ""
    if found and meant and meant.lower() not in WORDS:
        raise InvalidSettings(
            f"{path} has a text without straight quotes: {line.strip()}.", hint=f"Write it as {found[1]} = '{meant}'."
        )


def _unescaped(written: str) -> str | None:
    """What TOML reads of a text in double quotes, None if it stands in other quotes and would be none."""
    try:
        return str(tomllib.loads(f'text = "{written}"')["text"])
    except ValueError:
        return None


def _paths(values: object) -> Iterator[str]:
    """The paths among such values."""
    if isinstance(values, dict):
        for name, value in values.items():
            if name in PATHS and isinstance(value, str):
                yield value
            else:
                yield from _paths(value)
    elif isinstance(values, list):
        for value in values:
            yield from _paths(value)


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
