"""What can go wrong, by its code: the list that Help shows and errors link to.

`assets/docs/failures.json` is written by the tests that bring every failure about: it holds what a person saw then.
"""

import json
from collections.abc import Iterable, Iterator
from html import escape
from itertools import groupby
from typing import TypedDict

from app.kit.text import say
from app.kit.wording import html_of
from trainer.contract.home import CHECKOUT

FILE = CHECKOUT / "assets" / "docs" / "failures.json"
GROUPS = ("install", "settings", "pictures", "captions", "model", "hub", "train", "runs", "captioning", "page")


class Failure(TypedDict):
    """One thing that can go wrong, as it was reported."""

    group: str  # what the user was doing
    code: str
    case: str  # tells those of one code apart
    message: str
    why: str
    hint: str


FAILURES: list[Failure] = json.loads(FILE.read_text(encoding="utf-8"))
CODES = frozenset(one["code"] for one in FAILURES)


def link(code: str, language: str) -> str:
    """Returns a link to the failure on the Help page, which it names: the document's base is the start page."""
    if code not in CODES:  # of a newer or older version's run
        return ""
    return f'<a class="failure-link" href="help#{code}" target="_blank">{say(language, "help.more")}</a>'


def table(tongue: str) -> str:
    """Returns every failure with what happened and what to do; in folded groups, by what the user was doing."""
    return f"<p>{escape(say(tongue, 'help.failures_intro'))}</p>{''.join(_group(name, tongue) for name in GROUPS)}"


def folded(title: str, heads: Iterable[str], rows: str, tongue: str, purpose: str = "") -> str:
    """Returns a table of Help with these column headings, folded under its title."""
    columns = "".join(f'<th scope="col">{escape(say(tongue, f"help.{head}"))}</th>' for head in heads)
    about = f" <span>{escape(purpose)}</span>" if purpose else ""
    return (
        f'<details><summary><h3>{escape(title)}</h3>{about}</summary><div class="help-scroll" tabindex="0" '
        f'role="region" aria-label="{escape(title)}"><table><thead><tr>{columns}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def _group(name: str, tongue: str) -> str:
    failures = [one for one in FAILURES if one["group"] == name]
    rows = "".join(row for _, same in groupby(failures, lambda one: one["code"]) for row in _rows(same, tongue))
    return folded(say(tongue, f"help.failures.{name}"), ("said", "remedy"), rows, tongue)


def _rows(same: Iterable[Failure], tongue: str) -> Iterator[str]:
    """The rows of one code; links lead to the first."""
    for number, one in enumerate(same):
        anchor = f' id="{one["code"]}"' if number == 0 else ""
        why = f'<p class="quiet">{html_of(one["why"], tongue)}</p>' if one["why"] else ""
        yield f"<tr{anchor}><td>{html_of(one['message'], tongue)}{why}</td><td>{html_of(one['hint'], tongue)}</td></tr>"
