"""Errors of the page's actions, shown to whoever pressed the button or called the endpoint."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.context import LocalContext

from app.kit.cards import problem_card
from app.kit.text import language
from app.kit.wording import explained
from trainer.contract.errors import TrainerError
from trainer.contract.system_errors import system_explained


@contextmanager
def named_as_uploaded(file: Path) -> Iterator[None]:
    """Errors name an uploaded file as its user does, not by where this program has put it."""
    try:
        yield
    except TrainerError as error:
        error.message, error.hint = (text.replace(str(file), file.name) for text in (error.message, error.hint))
        raise


def reported(act: Callable[..., Any]) -> Callable[..., Any]:
    """Make an action report our own errors, and the system's, as what happened and what to do."""

    @functools.wraps(act)  # Gradio reads the signature
    def reporting(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever the action takes and returns
        """Run the action, or raise Gradio's error."""
        try:
            with system_explained():
                return act(*arguments, **named)
        except TrainerError as error:
            said = explained(error, language(LocalContext.request.get(None)))
            raise gr.Error(said, print_exception=False) from error

    return reporting


def carded(place: Block, act: Callable[..., Any]) -> Callable[..., Any]:
    """Make an action show our own errors as a card in the component `place`, one of its outputs."""

    @functools.wraps(act)  # Gradio reads the signature
    def showing(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever the action takes and returns
        """Run the action, or return the card."""
        try:
            return act(*arguments, **named)
        except TrainerError as error:
            return {place: problem_card(error, language(LocalContext.request.get(None)))}

    return showing
