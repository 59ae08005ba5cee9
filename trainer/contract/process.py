"""Start a process of the trainer that outlives whoever started it, the same on Windows, macOS and Linux."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress

import psutil

from trainer.contract.errors import RunBusy
from trainer.contract.home import CHECKOUT
from trainer.contract.runs import RunFolder

_children: list[subprocess.Popen[bytes]] = []  # kept, because on POSIX one that ended stays until it is asked for


def start(run: RunFolder) -> subprocess.Popen[bytes]:
    """Train (or resume) in the background; output goes to the run's `log.txt`.

    The run counts as alive from here on, not only once the new process has come so far as to say so itself.

    Raises:
        RunBusy: A process is training there already.
    """
    _refuse_busy(run)
    run.forget_requests()
    child = _spawn(run, "trainer")
    with suppress(psutil.Error):  # it has ended already
        run.record(psutil.Process(child.pid))
    return child


def draw_strip(run: RunFolder, file: str) -> subprocess.Popen[bytes]:
    """Draw the strength strip of one of the run's LoRA files in the background; output goes to the run's `log.txt`.

    Raises:
        RunBusy: A process is training there, and two models may not fit into memory.
    """
    _refuse_busy(run)
    return _spawn(run, "trainer.strength", file)


def _refuse_busy(run: RunFolder) -> None:
    busy = run.process()
    if busy is not None:
        raise RunBusy(run.path.name, busy.pid)


def _spawn(run: RunFolder, module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """A detached `python -m MODULE RUN ARGUMENTS`."""
    environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONPATH": _with_checkout(os.environ.get("PYTHONPATH", ""))}
    # -P: a torch.py in the folder where the user stands is not ours
    command = [sys.executable, "-P", "-m", module, str(run.path.resolve()), *arguments]
    with run.log_file.open("ab") as log:
        child = subprocess.Popen(  # noqa: S603 - an argument list, no shell
            command,
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            creationflags=_detached_flags(),
            start_new_session=os.name == "posix",
        )
    reap()
    _children.append(child)
    return child


def force_quit(run: RunFolder) -> bool:
    """End a trainer that no longer answers, at once; what it saved last stays. Gives back whether there was one."""
    trainer = run.process()
    if trainer is None:
        return False
    with suppress(psutil.NoSuchProcess):
        trainer.kill()
        trainer.wait(timeout=10)
    reap()
    return True


def reap() -> None:
    """Let go of the processes started here that have ended."""
    _children[:] = [child for child in _children if child.poll() is None]


def _detached_flags() -> int:
    """Windows' way to outlive a closed console; elsewhere a new session does it."""
    if sys.platform == "win32":
        return subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    return 0


def _with_checkout(search_path: str) -> str:
    """Python's search path with the checkout first, so a run starts from any working directory."""
    return os.pathsep.join(filter(None, [str(CHECKOUT), search_path]))
