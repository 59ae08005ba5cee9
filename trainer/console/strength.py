"""Generate a LoRA file's strength strip.

A picture of one prompt at rising strengths, written beside the file.
"""

from rich.console import Console

from trainer.console.flags import Flags, Parser
from trainer.console.progress import wait
from trainer.contract.home import Home
from trainer.contract.ours import open_plain
from trainer.contract.pasted import pasted
from trainer.contract.stops import ENDED_BY_SIGNAL
from trainer.runs import process
from trainer.runs.errors import RunError
from trainer.runs.folder import RunFolder
from trainer.runs.sheets import strip_name

USAGE = "RUN FILE"
LOG_BYTES = 2**14  # of its end: the reason stands last


def add_flags(parser: Parser) -> None:
    """Add the run and its file."""
    parser.add_argument("run", metavar="RUN", help="The run: its name or folder.")
    parser.add_argument(
        "file", type=pasted, metavar="FILE", help="One of its LoRA files: its name, as in ana-000200.safetensors."
    )


def run(flags: Flags, console: Console) -> int:
    """Generate the strip and print where it is; returns 0.

    Raises:
        RunError: It could not be generated.
    """
    folder = RunFolder.find(Home.find(flags.get("home")), flags["run"])
    logged = folder.log_file.stat().st_size if folder.log_file.exists() else 0
    code = wait(process.generate_strip(folder, flags["file"]), "Generating the strength strip", console)
    if code == ENDED_BY_SIGNAL:
        console.print("Stopped; there is no strip.")
        return code
    if code != 0:
        with open_plain(folder.log_file) as file:
            file.seek(max(logged, folder.log_file.stat().st_size - LOG_BYTES))
            said = file.read(LOG_BYTES).decode(errors="replace").strip().splitlines()
        raise RunError(
            said[-1] if said and code == 2 else f"The strength strip was not generated (exit code {code}).",
            hint=f"{folder.log_file} says more.",
        )
    console.print(f"Strength strip: {folder.path / strip_name(flags['file'])}", markup=False, soft_wrap=True)
    return 0
