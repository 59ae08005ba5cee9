"""A trainer that stands by before there is a run for it."""

import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import psutil
import pytest
from site_at_work import until

from app.server.standby import LOOK_SECONDS, SPARE_BYTES, Standby
from trainer.contract.events import EventLog, RunFinished
from trainer.contract.home import CHECKOUT
from trainer.runs import process


@pytest.fixture(autouse=True)
def _none_left():
    yield
    process.stand_down()


def ready():
    """The process that stands by, if there is one."""
    return process._ready[0] if process._ready else None


def gone(pid):
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def test_it_trains_the_run_it_is_given_and_its_words_go_to_the_runs_log(new_run):
    process.stand_by()
    waiting = ready()
    process.stand_by()
    assert ready() is waiting
    run = new_run(model={"base_model": "nowhere"})
    child = process.start(run)
    assert child is waiting
    assert ready() is None
    assert run.process().pid == child.pid
    assert child.wait() == 2
    assert run.view().ended.code == "base_model_missing"
    assert "BaseModelMissing" in run.log_file.read_text()


def test_it_trains_to_a_file(new_run):
    process.stand_by()
    run = new_run(dataset={"views": 1})
    child = ready()
    assert process.start(run) is child
    assert child.wait() == 0, run.log_file.read_text()
    assert run.status() == "completed"


def test_a_run_starts_without_it_when_it_has_died(new_run):
    process.stand_by()
    dead = ready()
    dead.kill()
    dead.wait()
    run = new_run(model={"base_model": "nowhere"})
    child = process.start(run)
    assert child is not dead
    assert child.wait() == 2
    assert run.status() == "failed"


def test_it_ends_with_the_process_that_asked_for_it():
    """Killed, not told: nothing but the end of its input reaches the one that stands by."""
    script = "from trainer.runs import process; process.stand_by(); print(process._ready[0].pid, flush=True); input()"
    owner = subprocess.Popen(
        [sys.executable, "-c", script], cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ
    )
    with owner:
        pid = int(owner.stdout.readline())
        owner.kill()
    until(lambda: gone(pid), "it ends")


def test_it_is_begun_while_nothing_trains_and_kept_while_memory_is_plenty(monkeypatch, new_run):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=SPARE_BYTES))
    run = new_run()
    looked_after = Standby(run.home)
    looked_after.keep(100.0)
    assert ready() is None, "the page is opened first"
    looked_after.keep(100.0 + LOOK_SECONDS)
    assert ready() is not None
    with monkeypatch.context() as patch:
        patch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=SPARE_BYTES - 1))
        looked_after.keep(100.0 + 2 * LOOK_SECONDS)
        assert ready() is None
    with training(run):
        looked_after.keep(100.0 + 3 * LOOK_SECONDS)
        assert ready() is None
    looked_after.keep(100.0 + 4 * LOOK_SECONDS)
    waiting = ready()
    assert waiting is not None
    with training(run):
        looked_after.keep(100.0 + 5 * LOOK_SECONDS)
        assert ready() is waiting


@contextmanager
def training(run):
    """While this lasts, another process trains the run."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as trainer:
        run.record(psutil.Process(trainer.pid))
        yield


def test_one_that_was_there_before_a_pause_counts_as_continuing(new_run):
    """The process is older than the end of the run it takes up again."""
    run = new_run()
    with EventLog(run.events_file) as log:
        log.write(RunFinished(reason="paused", step=1, seconds=1.0))
    assert run.status() == "paused"
    run.record(psutil.Process())
    assert run.status() == "running"
