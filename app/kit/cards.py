"""Notices of the page, as HTML cards, and lists of facts."""

from collections.abc import Sequence

from app.kit.failures import link
from app.kit.wording import Problem, html_of
from trainer.contract.errors import TrainerError


def problem_card(error: TrainerError, language: str) -> str:
    """Returns an error as a card: what happened, the value seen, what to do."""
    return alert_card(explanation(error, error.code, language))


def explanation(problem: Problem, code: str, language: str) -> str:
    """Returns what happened and what to do, with a link to Help, as a card's HTML."""
    hint = html_of(problem.hint, language)
    return f"{html_of(problem.message, language)}<p>{hint} {link(code, language)}</p>"


def good_card(text: str) -> str:
    """Returns a card for something that went well; `text` is HTML."""
    return f'<div class="notice good" role="status">{text}</div>'


def alert_card(text: str) -> str:
    """Returns a card for a problem; `text` is HTML."""
    return f'<div class="notice failure" role="alert">{text}</div>'


def facts_list(rows: Sequence[tuple[str, str]]) -> str:
    """Returns names and their values, both as HTML, as a list of facts."""
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows)
    return f'<dl class="facts">{listed}</dl>'
