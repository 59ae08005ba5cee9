"""What settings are made of, and how a refused value is reported."""

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from trainer.contract.errors import InvalidSettings
from trainer.contract.pasted import bare, pasted, pasted_model
from trainer.contract.wording import MARK, action, named

Level = Literal["basic", "advanced"]
NAME_BYTES = 200  # file systems allow 255, and 80 characters can take 320
WINDOWS_DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"}
WINDOWS_DEVICES |= {f"{port}{n}" for port in ("COM", "LPT") for n in "123456789¹²³"}
NO_NUMBER = {"int_parsing": "must be a whole number", "float_parsing": "must be a number"}  # by pydantic's kind
WEIGHTS = re.compile(r"(?:\.(?:safetensors|ckpt|pth?|bin))+$", re.IGNORECASE)  # the endings of model files


class Section(BaseModel):
    """A frozen group of settings that refuses unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def setting(
    default: Any,  # noqa: ANN401 - any setting's value
    *,
    description: str,
    level: Level = "advanced",
    unit: str = "",
    when: tuple[str, ...] = (),
    **limits: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """One setting.

    Args:
        default: Its value where nobody sets another.
        description: Its help.
        level: Whether the page shows it at once.
        unit: What it is counted in.
        when: Settings of which one must be on (true, above 0, not empty) for this one to have an effect.
        limits: Its range, by pydantic's words: `ge`, `le`, `min_length`.
    """
    extra: dict[str, Any] = {"level": level, "unit": unit, "when": list(when)}
    return Field(default, description=description, json_schema_extra=extra, **limits)


def reader(read: Callable[[str], str]) -> BeforeValidator:
    """Returns the validator that reads what was written before its length is judged; what is no text it lets pass."""
    return BeforeValidator(lambda value: read(value) if isinstance(value, str) else value)


def plain_file_name(name: str) -> str:
    """Returns the name if it is a valid file name on every system.

    Raises:
        ValueError: It is not; the message says why.
    """
    if name != name.strip() or name.startswith(".") or any(c in '/\\:*?"<>|' or ord(c) < 32 for c in name):
        raise ValueError('must be a plain file name: no / \\ : * ? " < > |, no leading dot, no spaces at the ends')
    if name.split(".", maxsplit=1)[0].rstrip().upper() in WINDOWS_DEVICES:
        raise ValueError("is a device on Windows, where no file can have this name")
    size = len(name.encode())
    if size > NAME_BYTES:
        raise ValueError(f"takes {size} bytes; at most {NAME_BYTES} leave room for step and suffix")
    return name


def weights_name(name: str) -> str:
    """Returns the name of a LoRA file without what was pasted around it, and without an ending of model files.

    Raises:
        ValueError: It cannot be a file's name on every system; the message says why.
    """
    plain = bare(name)
    return plain_file_name(WEIGHTS.sub("", plain.rstrip(". ")).rstrip(". ") or plain)


PastedPath = Annotated[str, reader(pasted)]
PastedModel = Annotated[str, reader(pasted_model)]  # a path, or owner/name
WeightsName = Annotated[str, reader(weights_name)]


def invalid(error: ValidationError, sections: Mapping[str, type[Section]]) -> InvalidSettings:
    """Returns pydantic's findings on settings of these sections as one error in our words."""
    lines, hints = [], []
    places: dict[str, str] = {}
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"]) or "settings"
        message = NO_NUMBER.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
        message = message.replace("Input should be", "must be").rstrip(".")
        places |= dict.fromkeys(_at_fault(place, message), f"{message}.")
        if problem["type"] == "extra_forbidden":
            lines.append(f"There is no setting {named(place)} (value seen: {problem['input']!r})")
            hints.append(_nearest(place, sections))
        elif MARK.search(message):  # it names the settings itself
            lines.append(message)
        elif isinstance(problem["input"], dict | BaseModel):
            lines.append(f"{named(place)}: {message}")
        else:
            lines.append(f"{named(place)} = {problem['input']!r}: {message}")
    hint = " ".join(dict.fromkeys(filter(None, hints))) or f"{action('settings')}."
    return InvalidSettings("; ".join(lines) + ".", hint=hint, places=places)


def _at_fault(place: str, message: str) -> list[str]:
    """The settings that a finding is about: those its message names, else its own (of a list, the setting itself)."""
    return [name for _, name, _ in MARK.findall(message)] or [".".join(place.split(".")[:2])]


def _nearest(place: str, sections: Mapping[str, type[Section]]) -> str:
    """A suggestion for a misspelt setting, or nothing."""
    known = [f"{section}.{name}" for section, fields in sections.items() for name in fields.model_fields]
    close = get_close_matches(place, known, n=1, cutoff=0.5)
    return f"Did you mean {named(close[0])}?" if close else ""
