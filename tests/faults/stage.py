"""Trainers forked from a process that has trained once: nothing is to be imported again, so each takes moments."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
from injected import Fault, Injector

from trainer.runs.folder import RunFolder

Job = tuple[str, Fault, float | None]
FILE_OPERATIONS = ".operations"  # in the home: what a trainer did there


class Stage:
    """The process that forks them, one after the other."""

    def __init__(self, first: RunFolder) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload(["trainer.engine.loop"])
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(str(first.path), theirs), daemon=True)
        self._process.start()
        theirs.close()
        assert self._pipe.recv() == 0

    def train(self, run: RunFolder, fault: Fault = Fault(), seconds: float | None = None) -> int:  # noqa: B008
        """Train a run to its end, or until the fault, or kill -9 after some seconds; gives back the exit code."""
        run.forget_requests()
        self._pipe.send((str(run.path), fault, seconds))
        return int(self._pipe.recv())

    def operations(self, run: RunFolder) -> list[str]:
        """What the trainer that came to its end did with files, each as "call<tab>what it was saving"."""
        return (run.home.root / FILE_OPERATIONS).read_text().splitlines()

    def close(self) -> None:
        self._pipe.close()
        self._process.join(10)


def _serve(first: str, pipe: Connection) -> None:
    from accelerate.state import AcceleratorState

    from trainer.__main__ import main

    pipe.send(main([first]))  # everything that is imported late, or chosen at the first use, is there from now on
    AcceleratorState._reset_state(reset_partial_state=True)  # but for what it chose for that run
    while True:
        try:
            job: Job = pipe.recv()
        except EOFError:
            return
        pipe.send(_fork(*job))


def _fork(path: str, fault: Fault, seconds: float | None) -> int:
    child = os.fork()
    if child == 0:
        _train(RunFolder(Path(path)), fault)
    with suppress(psutil.Error):
        RunFolder(Path(path)).record(psutil.Process(child))  # as whoever starts a trainer does
    began = time.monotonic()
    while seconds is not None and time.monotonic() - began < seconds:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    if seconds is not None:
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _train(run: RunFolder, fault: Fault) -> None:
    from trainer.__main__ import main

    code = 70  # something that no training ends with
    try:
        with run.log_file.open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        injector = Injector(fault, run.home.root, run.home.root / FILE_OPERATIONS)
        injector.install()
        code = main([str(run.path)])
        injector.finish()
    finally:
        sys.stderr.flush()
        os._exit(code)
