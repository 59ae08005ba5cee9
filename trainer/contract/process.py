"""Start a trainer process that outlives whoever started it, the same on Windows, macOS and Linux."""

from __future__ import annotations

import os
import subprocess
import sys

from trainer.contract.errors import RunBusy
from trainer.contract.home import CHECKOUT
from trainer.contract.runs import RunFolder


def start(run: RunFolder) -> subprocess.Popen[bytes]:
    """Train (or resume) in the background; output goes to the run's `log.txt`.

    Raises:
        RunBusy: A process is training there already.
    """
    busy = run.process()
    if busy is not None:
        raise RunBusy(run.path.name, busy.pid)
    run.forget_requests()
    environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONPATH": _with_checkout(os.environ.get("PYTHONPATH", ""))}
    command = [
        sys.executable,
        "-P",
        "-m",
        "trainer",
        str(run.path.resolve()),
    ]  # -P: a torch.py where the user stands is not ours
    with run.log_file.open("ab") as log:
        if sys.platform == "win32":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
            return subprocess.Popen(  # noqa: S603 - an argument list, no shell
                command,
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                creationflags=flags,
            )
        return subprocess.Popen(  # noqa: S603 - an argument list, no shell
            command,
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )


def _with_checkout(search_path: str) -> str:
    """Python's search path with the checkout first, so a run starts from any working directory."""
    return os.pathsep.join(filter(None, [str(CHECKOUT), search_path]))
