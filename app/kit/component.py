"""Elements of our own: templates and a script from `assets/` over Gradio's HTML component."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import gradio as gr
from gradio.components.base import server

from app.kit.questions import Answer
from trainer.contract.home import CHECKOUT

# Of an event that is the page's own: no endpoint for programs, and nothing that blinks
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def asset(name: str) -> str:
    """Returns the text of a file of `assets/`."""
    return (CHECKOUT / "assets" / name).read_text(encoding="utf-8")


class Element(gr.HTML):
    """HTML that never changes with its value; its script only sets attributes and texts, so nothing blinks."""

    SCRIPTS: tuple[str, ...] = ()  # files of `assets/` that make up the script, in order
    TEMPLATE = ""
    STYLE = ""
    EMPTY: Any = None

    def __init__(
        self,
        value: Any = None,  # noqa: ANN401 - whatever the script reads
        *,
        visible: bool = True,
        elem_id: str | None = None,
        render: bool = True,  # Gradio makes the component anew with False when a callback changes a property
    ) -> None:
        super().__init__(
            value,
            html_template=self.TEMPLATE,
            css_template=self.STYLE,
            js_on_load="\n".join(asset(name) for name in self.SCRIPTS),
            apply_default_css=False,
            visible=visible,
            elem_id=elem_id,
            render=render,
        )

    def postprocess(self, value: Any) -> str:  # noqa: ANN401
        """Returns the value as one JSON text: the browser's framework would watch each number of a list separately."""
        return json.dumps(self.EMPTY if value is None else value, allow_nan=False, separators=(",", ":"))

    def serve(self, functions: Iterable[Answer]) -> None:
        """Let the script call these functions by their names."""
        marked: Callable[[Any], Any] = server
        for function in functions:
            self.server_fns.append(marked(function))
            setattr(self, function.__name__, function)


class Leads(Element):
    """Its value is an address of ours, to which the browser goes when it changes."""

    SCRIPTS = ("leads.js",)

    def postprocess(self, value: Any) -> str:  # noqa: ANN401 - an address or None
        """The address."""
        return str(value or "")
