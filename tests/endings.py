"""Programs that are asked to end: how the tests start them, make their steps long, and see what is left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import psutil
from site_at_work import until

from trainer.contract.events import RunFinished, Step
from trainer.contract.home import CHECKOUT
from trainer.runs.folder import RunFolder

QUICK_STEPS = 4  # before the long ones
# Beside a trainer, as Python's own way to change what it starts
LONG_STEPS = """
import sys, time

if "trainer" in sys.orig_argv:
    from trainer.engine import loop

    plain = loop.learn

    def slow(training, *rest):
        if training.step >= {quick}:
            time.sleep({seconds})
        return plain(training, *rest)

    loop.learn = slow
"""


def steps(run: RunFolder) -> list[Step]:
    """Those trained so far."""
    return list(run.view().steps)


def begun(run: RunFolder) -> None:
    """Wait for the first step."""
    until(lambda: steps(run), "the first step")


def long_steps(folder: Path, seconds: float) -> dict[str, str]:
    """The environment of trainers whose steps take so long, all but the first `QUICK_STEPS`."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(LONG_STEPS.format(quick=QUICK_STEPS, seconds=seconds))
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(CHECKOUT)])}


def in_a_long_step(run: RunFolder) -> None:
    """Wait until the quick steps are over, and their checkpoint is there."""
    until(lambda: any(kept.step == QUICK_STEPS for kept in run.view().checkpoints), "the checkpoint")


def console(
    run: RunFolder,
    *,
    output: int | IO[str] = subprocess.PIPE,
    before: Callable[[], Any] | None = None,
    program: Sequence[str] = ("-m", "trainer.console.main"),
    **variables: str,
) -> subprocess.Popen[str]:
    """A console that resumes, or begins, the run."""
    command = [sys.executable, *program, "train", "--resume", str(run.path), "--home", str(run.home.root)]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "COLUMNS": "200", **variables}
    return subprocess.Popen(
        command, cwd=CHECKOUT, env=environment, stdout=output, stderr=subprocess.STDOUT, text=True, preexec_fn=before
    )


def everyone(pid: int) -> list[psutil.Process]:
    """The process and all that it started, as a container or a service has them."""
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


def is_saved(run: RunFolder) -> None:
    """It is stopped, its last checkpoint is that of its last step, and a LoRA file is there."""
    view = run.view()
    assert isinstance(view.ended, RunFinished), view.ended
    assert view.ended.reason == "stopped"
    assert run.status() == "stopped"
    last = view.ended.step
    assert last
    assert view.checkpoints[-1].step == last
    assert list(run.path.glob(f"*-{last:06}.safetensors"))
    assert not list(run.path.rglob("*.part"))
