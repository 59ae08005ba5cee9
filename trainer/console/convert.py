"""Convert a checkpoint to .safetensors.

It is read without running code in it, and no file is overwritten.
"""

import subprocess
import sys
from argparse import SUPPRESS
from pathlib import Path

from rich.console import Console

from trainer.console.flags import Flags, Parser
from trainer.console.progress import wait
from trainer.contract import stops
from trainer.contract.home import user_path

USAGE = "MODEL.ckpt [TARGET]"


def add_flags(parser: Parser) -> None:
    """Add the two files."""
    parser.add_argument("source", type=user_path, metavar="MODEL.ckpt", help="The checkpoint.")
    parser.add_argument(
        "target", type=_target, metavar="TARGET.safetensors", nargs="?", help="The new file, else beside it."
    )


def _target(written: str) -> Path | str:
    """The new file; what argparse passes where none is given stays what it is."""
    return written if written is SUPPRESS else user_path(written)


def run(flags: Flags, console: Console) -> int:
    """Convert the file; returns the exit code of the process that does it."""
    source = flags["source"]
    target = flags["target"] if "target" in flags else source.with_suffix(".safetensors")
    command = [sys.executable, "-P", "-m", "trainer.tools.convert", str(source), str(target)]
    with stops.held_back():
        started = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603 - an argument list
    with started as child:
        code = wait(child, f"Converting {source.name}", console)
        said = child.stdout.read() if child.stdout else b""
    for line in said.decode(errors="replace").splitlines():
        console.print(line, markup=False, soft_wrap=True)
    if code == stops.ENDED_BY_SIGNAL:
        console.print("Stopped; nothing was written.")
    return code
