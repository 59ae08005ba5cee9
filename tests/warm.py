"""Trainer processes forked from one that has imported PyTorch already: the import takes longer than a tiny training."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from trainer.runs import process
from trainer.runs.folder import RunFolder
from trainer.runs.workfolder import Request

if TYPE_CHECKING:
    from trainer.engine.state import Training


class Fork:
    """A trainer process, with the part of `subprocess.Popen` the tests use."""

    def __init__(self, run: RunFolder, ask: Request | None = None) -> None:
        """Train the run; `ask` is asked of it after its first step."""
        # Each test process has one server of its own, which no other thread or training has touched before the fork
        context = get_context("forkserver")
        context.set_forkserver_preload(["trainer.engine.loop"])
        run.forget_requests()
        self._process = context.Process(target=_train, args=(str(run.path), str(run.log_file), ask))
        self._process.start()
        self.pid = self._process.pid
        with suppress(psutil.Error):
            run.record(psutil.Process(self.pid))

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float = 300) -> int | None:
        self._process.join(timeout)
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


def asking(what: Request) -> Callable[[Training], None]:
    """To stand in place of the loop's `rest`: the run is asked for this after each step."""
    from trainer.engine import loop

    rest = loop.rest

    def _rest(training: Training) -> None:
        training.run.request(what)
        rest(training)

    return _rest


def _train(run: str, log_file: str, ask: Request | None) -> None:
    from trainer.__main__ import main
    from trainer.engine import loop

    if ask:
        loop.rest = asking(ask)
    with Path(log_file).open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.exit(main([run]))


start = Fork if hasattr(os, "fork") else process.start
