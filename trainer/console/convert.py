"""`convert MODEL.ckpt [TARGET.safetensors]`: a checkpoint as safetensors, by a process that may import torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from trainer.console.errors import FAILED

MODULE = "trainer.tools.convert"


def convert(arguments: Sequence[str], console: Console) -> int:
    """Convert the file that is named; the exit code of the process that does it."""
    if len(arguments) not in (1, 2) or arguments[0].startswith("-"):
        console.print("python launch.py convert MODEL.ckpt [TARGET.safetensors]", markup=False)
        return FAILED
    source = Path(arguments[0]).expanduser()
    target = Path(arguments[1]).expanduser() if len(arguments) == 2 else source.with_suffix(".safetensors")
    command = [sys.executable, "-P", "-m", MODULE, str(source), str(target)]
    return subprocess.run(command, check=False).returncode  # noqa: S603 - an argument list
