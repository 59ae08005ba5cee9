"""How every command shows errors and notes: in the page's words, without a traceback."""

from rich.console import Console
from rich.text import Text

from trainer.contract.errors import TrainerError
from trainer.contract.events import RunFailed
from trainer.contract.units import error_lines
from trainer.contract.wording import for_console

FAILED = 2  # the exit code of an error that the user can act on


def show_error(error: TrainerError | RunFailed, console: Console) -> None:
    """Print what happened, the value seen, what to do, and where Help says more."""
    lines = Text(error_lines(error.code, error.message, error.hint))
    lines.stylize("bold red", 0, len("Error"))
    console.print(lines, soft_wrap=True)


def show_note(message: str, hint: str, console: Console) -> None:
    """Print a warning and what to do about it."""
    console.print(f"Note: {for_console(f'{message} {hint}'.rstrip())}", style="yellow", markup=False)
