"""What can go wrong, by its code: the list that Help shows and errors link to.

`assets/docs/failures.json` is written by the tests that bring every failure about: it holds what a person saw then.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from itertools import groupby
from typing import TypedDict

from app.kit.text import say
from trainer.contract.home import CHECKOUT

FILE = CHECKOUT / "assets" / "docs" / "failures.json"
GROUPS = ("install", "settings", "pictures", "captions", "model", "hub", "train", "runs", "captioning", "page")


class Failure(TypedDict):
    """One thing that can go wrong, as it was told when it did."""

    group: str  # what the user was about
    code: str
    case: str  # tells those of one code apart
    message: str
    why: str
    hint: str


FAILURES: list[Failure] = json.loads(FILE.read_text(encoding="utf-8"))
CODES = frozenset(one["code"] for one in FAILURES)


def link(code: str) -> str:
    """The code, as a link to where Help tells of it; with the page's name, since the base is the start page."""
    if code not in CODES:  # of a newer or older version's run
        return ""
    return f'<a class="failure-code" href="help#{code}" target="_blank">{code}</a>'


def table(tongue: str) -> str:
    """Every failure with its code, what is said, and what to do; by what the user was about, folded."""
    return f"<p>{escape(say(tongue, 'help.failures_intro'))}</p>{''.join(_group(name, tongue) for name in GROUPS)}"


def _group(name: str, tongue: str) -> str:
    title = escape(say(tongue, f"help.failures.{name}"))
    heads = "".join(
        f'<th scope="col">{escape(say(tongue, f"help.{head}"))}</th>' for head in ("code", "said", "remedy")
    )
    failures = [one for one in FAILURES if one["group"] == name]
    rows = "".join(row for code, same in groupby(failures, lambda one: one["code"]) for row in _rows(code, list(same)))
    return (
        f'<details><summary><h3>{title}</h3></summary><div class="help-scroll" tabindex="0" role="region" '
        f'aria-label="{title}"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div></details>'
    )


def _rows(code: str, same: list[Failure]) -> Iterator[str]:
    """The rows of one code, of which the first is what links lead to."""
    for number, one in enumerate(same):
        head = f'<th scope="rowgroup" rowspan="{len(same)}" id="{code}"><code>{code}</code></th>' if number == 0 else ""
        why = f'<p class="quiet">{escape(one["why"])}</p>' if one["why"] else ""
        yield f"<tr>{head}<td>{escape(one['message'])}{why}</td><td>{escape(one['hint'])}</td></tr>"
