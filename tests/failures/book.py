"""The cases, and the list of what they show."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from app.kit.failures import FILE

CASES: dict[str, Case] = {}


@dataclass(frozen=True)
class Seen:
    """What a person was shown, in the page's words."""

    code: str
    message: str
    hint: str
    why: str = ""


@dataclass(frozen=True)
class Case:
    """One thing that goes wrong."""

    group: str  # what the user was about: one of app.kit.failures.GROUPS
    code: str
    name: str  # of all cases, its own
    happens: Callable[[Any], Seen]  # given a Scene
    trains: bool  # takes a second or more


def case(group: str, code: str, *, trains: bool = False) -> Callable[[Callable[[Any], Seen]], Callable[[Any], Seen]]:
    """Note a function as a case."""

    def noted(happens: Callable[[Any], Seen]) -> Callable[[Any], Seen]:
        assert happens.__name__ not in CASES
        CASES[happens.__name__] = Case(group, code, happens.__name__, happens, trains)
        return happens

    return noted


def entry(case: Case, seen: Seen) -> dict[str, str]:
    """What the list says of a case."""
    return {"group": case.group, "case": case.name, **asdict(seen)}


def listed() -> dict[str, dict[str, str]]:
    """The list, by case."""
    return {one["case"]: one for one in json.loads(FILE.read_text(encoding="utf-8"))}


def write(case: Case, seen: Seen) -> None:
    """Put what was seen into the list, which keeps the cases of one code together."""
    known = listed() | {case.name: entry(case, seen)}
    codes = list(dict.fromkeys(one.code for one in CASES.values()))
    kept = sorted((known[name] for name in CASES if name in known), key=lambda one: codes.index(one["code"]))
    FILE.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
