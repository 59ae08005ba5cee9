"""What the page says back, as cards."""

from __future__ import annotations

from html import escape

from app.kit.failures import link
from trainer.contract.errors import TrainerError


def problem_card(error: TrainerError) -> str:
    """An error: what happened, the value seen, what to do."""
    return alert_card(f"{escape(error.message)}<p>{escape(error.hint)} {link(error.code)}</p>")


def good_card(text: str) -> str:
    """Something that went well; `text` is HTML."""
    return f'<div class="notice good" role="status">{text}</div>'


def alert_card(text: str) -> str:
    """Something that hinders; `text` is HTML."""
    return f'<div class="notice failure" role="alert">{text}</div>'
