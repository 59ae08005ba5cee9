import os
import subprocess
import sys
import threading

import psutil
import pytest

from trainer.contract.events import EventLog, Heartbeat, RunFailed, RunFinished
from trainer.contract.home import Home
from trainer.contract.settings.config import validated
from trainer.runs import process
from trainer.runs.errors import RunBusy, RunMissing
from trainer.runs.folder import RunFolder
from trainer.runs.queue import Queue


@pytest.fixture
def queue(tmp_path):
    return Queue(Home(tmp_path / "heim ä"))


@pytest.fixture
def runs(queue):
    return [RunFolder.create(queue.home, validated({"output": {"name": name}})) for name in ("a", "b", "c")]


@pytest.fixture(autouse=True)
def trainers(monkeypatch):
    """In place of trainers, processes that sleep; ended by `trainers[run].kill()`."""
    started = {}

    def start(run):
        if "unstartable" in run.path.name:
            raise OSError("no such file")
        started[run] = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        run.record(psutil.Process(started[run].pid))

    monkeypatch.setattr(process, "start", start)
    yield started
    for child in started.values():
        child.kill()
        child.wait()


def end(child):
    child.kill()
    child.wait()


def ended(run, event):
    with EventLog(run.events_file) as log:
        log.write(event)


def test_the_first_run_starts_and_the_next_ones_wait_their_turn(queue, runs, trainers):
    assert [queue.start(run) for run in runs] == [True, False, False]
    assert queue.active() == runs[0]
    assert queue.waiting() == runs[1:]
    assert queue.advance() is None
    end(trainers[runs[0]])
    assert queue.advance() == runs[1]
    assert queue.waiting() == runs[2:]


def test_a_run_waits_only_once_and_is_not_started_twice(queue, runs):
    for run in (*runs, runs[1]):
        if run != runs[0] or queue.active() is None:
            queue.start(run)
    assert queue.waiting() == runs[1:]
    with pytest.raises(RunBusy):
        queue.start(runs[0])


def test_of_many_starts_at_once_one_wins(queue, trainers):
    runs = [RunFolder.create(queue.home, validated({"output": {"name": f"r{i}"}})) for i in range(8)]
    threads = [threading.Thread(target=queue.start, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(trainers) == 1
    assert {*queue.waiting(), *trainers} == set(runs)


def test_the_order_can_be_changed(queue, runs):
    first = RunFolder.create(queue.home, validated({"output": {"name": "first"}}))
    for run in (first, *runs):
        queue.start(run)
    queue.move(runs[2], 0)
    assert queue.waiting() == [runs[2], runs[0], runs[1]]
    queue.move(runs[2], 99)
    assert queue.waiting() == runs
    queue.remove(runs[1])
    assert queue.waiting() == [runs[0], runs[2]]
    with pytest.raises(RunMissing):
        queue.move(runs[1], 0)


def test_a_run_that_cannot_be_started_or_was_deleted_stops_nobody(queue, runs, trainers):
    first, broken = (RunFolder.create(queue.home, validated({"output": {"name": n}})) for n in ("first", "unstartable"))
    for run in (first, broken, runs[0], runs[1]):
        queue.start(run)
    runs[0].config_file.unlink()
    end(trainers[first])
    assert queue.advance() == runs[1]
    assert queue.waiting() == []


@pytest.mark.parametrize(
    ("event", "goes_on"),
    [
        (RunFinished(reason="completed", step=3, seconds=1.0), True),
        (RunFinished(reason="stopped", step=3, seconds=1.0), True),
        (RunFinished(reason="paused", step=3, seconds=1.0), False),
        (RunFailed(code="non_finite_loss", message="NaN", hint="Lower it."), True),
        (RunFailed(code="terminated", message="SIGTERM", hint="Resume it."), False),
        (RunFailed(code="disk_full", message="No room.", hint="Free some."), False),
        (RunFailed(code="device_lost", message="No card.", hint="Restart."), False),
    ],
)
def test_a_trainer_hands_over_unless_the_next_one_should_wait_or_would_fail_too(queue, runs, trainers, event, goes_on):
    queue.start(runs[0])
    queue.start(runs[1])
    end(trainers[runs[0]])
    ended(runs[0], event)
    queue.hand_over(runs[0])
    assert (runs[1] in trainers) == goes_on
    assert (runs[1] in queue.waiting()) != goes_on
    queue.take_over()  # somebody opens the page
    assert (runs[1] in trainers) == goes_on


@pytest.mark.parametrize("events", [[], [Heartbeat()]], ids=["while it loaded", "while it trained"])
def test_whoever_opens_the_page_starts_what_waited_for_a_trainer_that_was_killed(queue, runs, trainers, events):
    queue.start(runs[0])
    queue.start(runs[1])
    ended(runs[2], RunFinished(reason="paused", step=3, seconds=1.0))
    os.utime(runs[2].events_file, (0, 0))  # long before
    for event in events:
        ended(runs[0], event)
    queue.take_over()
    assert runs[1] not in trainers
    end(trainers[runs[0]])
    queue.take_over()
    assert runs[1] in trainers


@pytest.mark.parametrize("text", ["", "{", "[]", '{"waiting": 3}', '{"waiting": ["../../etc", "nowhere", 5]}'])
def test_a_queue_file_that_cannot_be_read_is_an_empty_queue(queue, runs, text):
    queue.home.queue_file.write_text(text)
    assert queue.waiting() == []
    assert queue.start(runs[0])
