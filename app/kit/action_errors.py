"""Errors of the page's actions, told to whoever pressed the button or called the endpoint."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gradio as gr

from trainer.contract.errors import TrainerError
from trainer.contract.system_errors import system_explained


def told(act: Callable[..., Any]) -> Callable[..., Any]:
    """The same action; an error of ours, or of the system, says what happened and what to do."""

    @functools.wraps(act)  # Gradio reads the signature
    def _telling(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever the action takes and gives
        try:
            with system_explained():
                return act(*arguments, **named)
        except TrainerError as error:
            raise gr.Error(f"{error.message} {error.hint}", print_exception=False) from error

    return _telling
