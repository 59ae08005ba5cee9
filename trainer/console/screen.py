"""The console that every command prints on."""

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment
from rich.text import Text

from trainer.contract.units import shown


class Screen(Console):
    """Shows text from files and users escaped: it can neither command the terminal nor pretend to be another line.

    A string is one line. Several lines that belong together are a `Text`, made of strings that were `shown`.
    """

    def __init__(self) -> None:
        terminal = sys.stdout is not None and sys.stdout.isatty()
        # Otherwise FORCE_COLOR and the like would put a terminal's commands into a file
        super().__init__(highlight=False, emoji=False, force_terminal=None if terminal else False)

    def render_str(self, text: str, **how: Any) -> Text:  # noqa: ANN401 - as rich has them
        """Returns a string, of a table's cell too, as the one line that it is."""
        return super().render_str(shown(text), **how)

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        """What goes to the terminal: our own styles and lines, and no command within a text."""
        return super()._render_buffer([one if one.control else _plain(one) for one in buffer])


def _plain(segment: Segment) -> Segment:
    text = segment.text
    if text.isprintable():
        return segment
    return segment._replace(text="\n".join(shown(line) for line in text.split("\n")))
