"""Whose run it is: two trainers, one that hangs, one whose page is gone, a process number that another program got."""

import signal
import subprocess
import sys

import psutil
import pytest
import tally
import warm
from site_at_work import failure, reached, until
from soundness import differences, faults_of

from trainer.contract.events import RunFinished, RunStarted, read_events
from trainer.contract.home import CHECKOUT
from trainer.runs import process


@pytest.mark.parametrize("tries", [pytest.param(1, id="once"), pytest.param(10, id="ten", marks=pytest.mark.faults)])
def test_two_trainers_of_one_run_never_both_train(make_run, whole, tries):
    lost = []
    for _ in range(tries):
        run = make_run()
        children = [warm.start(run) for _ in range(2)]
        codes = sorted(child.wait() for child in children)
        events = read_events(run.events_file)[0]
        told = [type(event).__name__ for event in events if isinstance(event, RunStarted | RunFinished)]
        wrong = [f"exit codes {codes}"] * (
            codes not in ([0, 0], [0, 1])
        )  # the other came when all was done, or was refused
        wrong += [f"it told {told}"] * (told not in (["RunStarted", "RunFinished"], ["RunStarted", "RunFinished"] * 2))
        wrong += ["events are mixed"] * ([event.seq for event in events] != list(range(len(events))))
        lost += tally.note("two trainers for one run", wrong + differences(run, whole()))
    assert not lost


def test_a_trainer_that_was_suspended_counts_as_alive_is_force_quit_and_gone_on_with(stage, make_run, whole):
    run = make_run()
    child = warm.start(run)
    until(lambda: reached(run, 3), f"it trains: {failure(run)}")
    child.send_signal(signal.SIGSTOP)
    alive = run.status()
    assert process.force_quit(run)
    child.wait()
    wrong = [f"while it was suspended, it was {alive}"] * (alive != "running") + faults_of(run)
    stage.train(run)
    assert not tally.note("suspended, then force quit", wrong + differences(run, whole()))


@pytest.mark.faults
def test_the_page_is_killed_and_the_trainer_goes_on(make_run, whole):
    run = make_run()
    page = (
        "import sys, time\nfrom pathlib import Path\nfrom trainer.runs import process\n"
        "from trainer.runs.folder import RunFolder\nprocess.start(RunFolder(Path(sys.argv[1])))\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", page, str(run.path)], cwd=CHECKOUT) as child:
        until(run.process, "the page starts it")
        child.kill()
    until(lambda: run.status() != "running", f"the trainer ends: {failure(run)}")
    assert not tally.note("the page is killed", differences(run, whole()))


def test_a_killed_trainers_number_that_another_program_got_keeps_nobody_from_going_on(stage, make_run, whole):
    run = make_run()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as other:
        run.record(psutil.Process(other.pid))
        record = run.process_file.read_text()
        started = psutil.Process(other.pid).create_time()
        run.process_file.write_text(
            record.replace(str(started), str(started - 5000)).replace('"since_boot": ', '"since_boot": 1')
        )
        wrong = [f"exit code {code}" for code in [stage.train(run)] if code]
        other.kill()
    assert not tally.note("process number reused", wrong + differences(run, whole()))
