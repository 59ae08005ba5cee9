"""What each setting is, for whoever makes flags or a form of them: kind, range, unit, help, default."""

from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from trainer.contract.settings.config import SECTIONS
from trainer.contract.settings.fields import Level

Kind = Literal["switch", "whole", "number", "choice", "text", "texts"]
BOUNDS = (("Ge", "from"), ("Gt", "above"), ("Le", "to"), ("Lt", "below"))


@dataclass(frozen=True)
class SettingInfo:
    """One setting of one section."""

    section: str
    name: str
    kind: Kind
    choices: tuple[str, ...]
    bounds: dict[str, float]  # by the words of BOUNDS
    unit: str
    help: str
    level: Level
    default: Any
    when: tuple[str, ...] = ()  # settings of which one must be on for this one to have an effect

    @property
    def place(self) -> str:
        """Its full name, as in "adapter.rank"."""
        return f"{self.section}.{self.name}"

    @property
    def label(self) -> str:
        """Its name for people, as in "Learning rate"."""
        return self.name.replace("_", " ").capitalize()

    @property
    def range_text(self) -> str:
        """Its range with the unit, as in "from 32 to 2048 px"; empty where anything goes."""
        if not self.bounds:
            return ""
        words = (
            f"{word} {limit if isinstance(limit, int) else format(limit, 'g')}" for word, limit in self.bounds.items()
        )
        return " ".join(words) + (f" {self.unit}" if self.unit else "")


def all_settings() -> list[SettingInfo]:
    """Every setting, in declared order."""
    return [
        _info(section, name, field)
        for section, fields in SECTIONS.items()
        for name, field in fields.model_fields.items()
    ]


def _info(section: str, name: str, field: FieldInfo) -> SettingInfo:
    limits = {type(entry).__name__: entry for entry in field.metadata}
    extra: Any = field.json_schema_extra or {}
    return SettingInfo(
        section=section,
        name=name,
        kind=_kind(field.annotation),
        choices=get_args(field.annotation) if get_origin(field.annotation) is Literal else (),
        bounds={word: getattr(limits[kind], kind.lower()) for kind, word in BOUNDS if kind in limits},
        unit=str(extra.get("unit", "")),
        help=str(field.description),
        level=extra.get("level", "advanced"),
        default=field.default,
        when=tuple(extra.get("when", ())),
    )


def _kind(annotation: Any) -> Kind:  # noqa: ANN401 - any type a setting may have
    if get_origin(annotation) is Literal:
        return "choice"
    if get_origin(annotation) is tuple:
        return "texts"
    kinds: dict[Any, Kind] = {bool: "switch", int: "whole", float: "number"}
    return kinds.get(annotation, "text")
