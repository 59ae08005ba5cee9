"""Settings as TOML files, and settings that an older version wrote."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomlkit

from trainer.contract.errors import InvalidSettings
from trainer.contract.foreign import ForeignFile, Kind, kind_of_bytes, kind_of_text
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
OURS = {*SECTIONS, "preset", "goal", "intent"}
QUOTED = re.compile(r'"((?:[^"\\\n]|\\.)*)"?')  # a text in double quotes, in which a backslash begins an escape
DRIVE = re.compile(r"[A-Za-z]:|\\\\(?!\\)|\.{1,2}\\")  # a path of Windows begins so
SINGLE = re.compile(r"(?<!\\)(?:\\\\)*\\(?!\\)")  # a backslash that is not doubled
UNWANTED = re.compile(r"(?<!\\)(?:\\\\)*\\[bf]")  # an escape that no setting has any use for
LINE = re.compile(r"at line (\d+)")


def read_toml(path: Path) -> Values:
    """A TOML file's values.

    Raises:
        InvalidSettings: Not there, too large, not UTF-8, not TOML, or a path of Windows in which TOML sees escapes.
        ForeignFile: It is another program's, or none of settings.
    """
    text = _text(path)
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # what text can do
        _refuse_foreign(path, kind_of_text(text))
        line = LINE.search(str(error))
        _refuse_escapes(path, text.split("\n")[int(line[1]) - 1] if line else text)
        raise InvalidSettings(f"{path} cannot be read: {error}.", hint="It must be a TOML file in UTF-8.") from None
    if not OURS.issuperset(values):
        _refuse_foreign(path, kind_of_text(text))
    _refuse_escapes(path, text, values)
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
        raise ForeignFile(path=path, **kind._asdict())


def _refuse_escapes(path: Path, text: str, values: Values | None = None) -> None:
    r"""Refuse a path of Windows in double quotes: TOML reads "D:\train\new" with a tab and a line end in it.

    Args:
        path: The file.
        text: Its text, or the line that is no TOML.
        values: What TOML reads; then only a text that it holds is refused.
    """
    read = None if values is None else set(_texts(values))
    for found in QUOTED.finditer(text):
        written = found[1]
        wrong = (DRIVE.match(written) and SINGLE.search(written)) or UNWANTED.search(written)
        if wrong and (read is None or _unescaped(written) in read):
            meant = written.rstrip('"')  # which a backslash at the end makes a part of the text
            slashes = ("//" if meant.startswith("\\\\") else "") + re.sub(r"\\+", "/", meant).lstrip("/")
            single = slashes.replace("/", "\\")
            raise InvalidSettings(
                f"{path} has a path in double quotes, where a backslash begins an escape: {found[0]}.",
                hint=f"Write it in single quotes, '{single}', or with forward slashes, \"{slashes}\".",
            )


def _unescaped(written: str) -> str | None:
    """What TOML reads of a text in double quotes, None if it stands in other quotes and would be none."""
    try:
        return str(tomllib.loads(f'text = "{written}"')["text"])
    except ValueError:
        return None


def _texts(value: object) -> Iterator[str]:
    """All texts that a value holds."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


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
