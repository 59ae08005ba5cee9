"""What the scripts of our elements ask of the server: a question read as a model, answered in the reader's language."""

from collections.abc import Callable
from typing import Any, TypeVar

import gradio as gr
from pydantic import BaseModel, ValidationError

from app.kit.text import language
from app.kit.wording import explained
from trainer.contract.errors import TrainerError
from trainer.contract.settings.fields import invalid
from trainer.contract.system_errors import system_explained

Answer = Callable[[dict[str, Any], gr.Request], Any]
Question = TypeVar("Question", bound=BaseModel)


def answer(kind: type[Question], respond: Callable[[Question, str], Any]) -> Answer:
    """Returns a function that the script may call: its question is read as `kind`; an error becomes {"error": …}.

    Args:
        kind: What the question holds.
        respond: Answers it in a language.
    """

    def answered(question: dict[str, Any], request: gr.Request) -> Any:  # noqa: ANN401 - whatever the script reads
        """The answer, or the error."""
        try:
            with system_explained():
                return respond(_read(kind, question), language(request))
        except TrainerError as error:
            return {"error": explained(error, language(request))}

    answered.__name__ = respond.__name__  # by which the script calls it
    return answered


def _read(kind: type[Question], question: object) -> Question:
    """What was asked.

    Raises:
        InvalidSettings: It is no such question; the page's own script asks none.
    """
    try:
        return kind.model_validate(question)
    except ValidationError as error:
        raise invalid(error, {}) from None
