"""What the trainer's sentences name, in the page's words: a control by its label, a command by its button."""

import re
from html import escape
from typing import Protocol

from app.kit.text import ENGLISH, say
from trainer.contract.wording import MARK


class Problem(Protocol):
    """An error, a warning or an event: what happened, and what to do."""

    @property
    def message(self) -> str:
        """What happened."""
        ...

    @property
    def hint(self) -> str:
        """What to do."""
        ...


def on_page(text: str, language: str) -> str:
    """Returns the text as the page shows it: no flag, no setting's dotted path, no command."""
    return MARK.sub(lambda mark: _worded(mark, language), text)


def html_of(text: str, language: str) -> str:
    """Returns the text as the page shows it, escaped for HTML."""
    return escape(on_page(text, language))


def explained(problem: Problem, language: str) -> str:
    """Returns message and hint as one plain text."""
    return on_page(f"{problem.message} {problem.hint}", language)


def setting_name(place: str, language: str) -> str:
    """Returns what the page calls a setting."""
    key = f"setting.{place}"
    return say(language, key) if key in ENGLISH else place.rpartition(".")[2].replace("_", " ")


def section_name(section: str, language: str) -> str:
    """Returns what the page calls a group of settings."""
    return say(language, f"section.{section}")


def _worded(mark: re.Match[str], language: str) -> str:
    kind, name, value = mark[1], mark[2], mark[3]
    if kind == "action":
        key = f"action.{name}"
        return say(language, key, what=value or "") if key in ENGLISH else name
    label = setting_name(name, language)
    return f"“{label}”" if kind == "named" or value is None else f"“{label}: {value}”"
