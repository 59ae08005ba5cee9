"""List the presets and what each is for."""

from rich.console import Console
from rich.markup import escape

from trainer.console.errors import show_note
from trainer.console.flags import Flags, no_flags
from trainer.contract.home import Home
from trainer.contract.presets import FOLDER, list_presets

USAGE = ""
add_flags = no_flags


def run(flags: Flags, console: Console) -> int:
    """Print each preset's name and intent, own ones too; returns 0."""
    usable, broken = list_presets(FOLDER, Home.find(flags.get("home")).presets)
    for preset in usable:
        console.print(f"[bold]{escape(preset.name):22}[/] {escape(preset.intent)}")
    for error in broken:
        show_note(error.message, "", console)
    return 0
