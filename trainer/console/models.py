"""List the base models on this computer."""

from rich.console import Console
from rich.markup import escape

from trainer.console.flags import Flags, no_flags
from trainer.models.lookup import models_here, name_of

USAGE = ""
add_flags = no_flags


def run(_flags: Flags, console: Console) -> int:
    """Print each model's name, kind, location, and what --base-model takes for it; returns 0."""
    models = models_here()
    for one in models:
        console.print(f"[bold]{escape(one.name)}[/]  {escape(one.model.sentence())}", soft_wrap=True)
        console.print(f"  {one.where}: {name_of(one)}", markup=False, soft_wrap=True)
    if not models:
        console.print("No base models in WebUI folders or the Hugging Face cache; --base-model takes any path.")
    return 0
