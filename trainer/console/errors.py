"""How every console program tells of an error: in the page's words, and without the technical story."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.text import Text

from trainer.contract.errors import TrainerError
from trainer.contract.events import RunFailed
from trainer.contract.system_errors import of_system
from trainer.contract.units import error_lines

FAILED = 2  # the exit code of an error that the user can act on


def ended(work: Callable[[], int], console: Console) -> int:
    """The exit code of a program's work; an error that it meets is told."""
    try:
        return work()
    except TrainerError as error:
        show_error(error, console)
    except OSError as error:
        show_error(of_system(error), console)
    return FAILED


def show_error(error: TrainerError | RunFailed, console: Console) -> None:
    """What happened, the value seen, what to do, and where Help says more."""
    lines = Text(error_lines(error.code, error.message, error.hint))
    lines.stylize("bold red", 0, len("Error"))
    console.print(lines, soft_wrap=True)
