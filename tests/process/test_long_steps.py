"""Who ends programs ends them for good after a while: docker after 10 s, systemd after 90 s. A step may take longer.

`launch.py test -m slow -n 0 tests/process/test_long_steps.py` does it with steps of half a minute, as a large model has
them on a CPU.
"""

import os
import time
from contextlib import suppress
from itertools import pairwise

import psutil
import pytest
from endings import QUICK_STEPS, console, everyone, in_a_long_step, is_saved, long_steps, steps
from site_at_work import Site, quick_run, until

from trainer.contract.home import CHECKOUT, Home
from trainer.runs import process
from trainer.runs.queue import Queue

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows sends no signals")
LONG = {"views": 2000}
EVERY = {"checkpoint_every": QUICK_STEPS}


HALF_A_MINUTE = 30.0


@pytest.fixture(params=[pytest.param(3.0, id="3s"), pytest.param(HALF_A_MINUTE, id="30s", marks=pytest.mark.slow)])
def seconds(request):
    """How long a step takes that is waited for."""
    return request.param


@pytest.fixture(params=[pytest.param(2.0, id="2s"), pytest.param(10.0, id="10s", marks=pytest.mark.slow)])
def grace(request):
    """How long whoever ends programs waits until they are killed."""
    return request.param


@pytest.fixture
def hook(tmp_path, monkeypatch):
    """Call it with seconds, and what is started has steps that take so long; with 0, as long as they do."""

    def set_to(wanted):
        search_path = long_steps(tmp_path / "hook", wanted) if wanted else {"PYTHONPATH": str(CHECKOUT)}
        for name, value in search_path.items():
            monkeypatch.setenv(name, value)

    return set_to


def kill_after(several, grace):
    """Asked to end, and killed while the step still runs; returns who was."""
    for one in several:
        one.terminate()
    _, alive = psutil.wait_procs(several, timeout=grace)
    for one in alive:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(several, timeout=30)
    return alive


def resumes_from_its_checkpoint(run):
    """A run that was killed has whole files only, and goes on behind its last checkpoint."""
    assert run.status() == "interrupted"
    assert run.view().ended is None
    child = process.start(run)
    until(lambda: any(one.step > QUICK_STEPS for one in steps(run)), "it resumes")
    child.terminate()
    assert child.wait(60) == 0
    is_saved(run)
    assert "Traceback" not in run.log_file.read_text()


def test_a_console_waits_for_the_step_and_leaves_out_the_previews(new_run, hook, seconds):
    """Of a container only the first process, the console, is told, so it tells the trainer that time is short."""
    run, waiting = new_run(dataset=LONG, output=EVERY), new_run()
    queue = Queue(run.home)
    hook(seconds)
    with console(run, PYTHONPATH=os.environ["PYTHONPATH"]) as shell:
        in_a_long_step(run)
        queue.start(waiting)
        drawn = len(run.view().samples)
        shell.terminate()
        output, _ = shell.communicate(timeout=seconds + 60)
    assert shell.returncode == 0, output
    is_saved(run)
    assert run.view().ended.by_system
    assert len(run.view().samples) == drawn
    assert queue.waiting() == [waiting]


def test_a_console_that_is_killed_alone_leaves_a_trainer_that_saves(new_run, hook, seconds):
    run = new_run(dataset=LONG, output=EVERY)
    hook(seconds)
    with console(run, PYTHONPATH=os.environ["PYTHONPATH"]) as shell:
        in_a_long_step(run)
        trainer = run.process()
        kill_after([psutil.Process(shell.pid)], 0.6)
    until(lambda: not trainer.is_running() or trainer.status() == psutil.STATUS_ZOMBIE, "the trainer ends")
    is_saved(run)


def test_a_console_that_is_killed_with_its_trainer_leaves_the_last_checkpoint(new_run, hook, grace):
    """Its next start goes on; what waited behind it waits for somebody, as after a step that was short enough."""
    run, waiting = new_run(dataset=LONG, output=EVERY), new_run()
    queue = Queue(run.home)
    hook(HALF_A_MINUTE)
    with console(run, PYTHONPATH=os.environ["PYTHONPATH"]) as shell:
        in_a_long_step(run)
        queue.start(waiting)
        several = [psutil.Process(shell.pid), run.process()]
        assert len(kill_after(several, grace)) == 2
        assert "Stopping after this step and saving" in shell.stdout.read()
    hook(0)
    queue.take_over()
    assert queue.waiting() == [waiting]
    resumes_from_its_checkpoint(run)


def test_a_page_that_is_ended_with_its_trainer_finds_it_interrupted(tmp_path, hook, grace):
    home = Home(tmp_path / "home")
    site = Site(home.root)
    hook(HALF_A_MINUTE)
    site.start()
    try:
        run = quick_run(home, "ana", dataset=LONG, output=EVERY)
        Queue(home).start(run)
        in_a_long_step(run)
        trainer = run.process()
        assert trainer in kill_after([trainer, *everyone(site.process.pid)], grace)
        site.process.wait()
        hook(0)
        site.start()
        resumes_from_its_checkpoint(run)
    finally:
        site.kill()


def test_a_group_that_is_killed_leaves_the_last_checkpoint(new_run, hook, grace):
    run = new_run(dataset={**LONG, "batch_size": 2}, model={"processes": 2}, output=EVERY)
    hook(HALF_A_MINUTE)
    process.start(run)
    in_a_long_step(run)
    group = everyone(run.process().pid)
    assert len(group) >= 3
    assert len(kill_after(group, grace)) == len(group)
    hook(0)
    resumes_from_its_checkpoint(run)


def test_of_a_group_that_is_told_by_its_leader_each_waits_for_the_step(new_run, hook, seconds):
    run = new_run(dataset={**LONG, "batch_size": 2}, model={"processes": 2}, output=EVERY)
    hook(seconds)
    child = process.start(run)
    in_a_long_step(run)
    group = everyone(run.process().pid)
    child.terminate()
    assert child.wait(3 * seconds + 30) == 0, run.log_file.read_text()
    is_saved(run)
    assert run.view().ended.by_system
    assert not psutil.wait_procs(group, timeout=10)[1]


@pytest.mark.slow
def test_a_step_of_more_than_a_minute_is_heard_of_in_a_file_every_minute(new_run, tmp_path):
    """Each line is read when it comes, since what is kept back in memory is no sign of life."""
    run = new_run(dataset=LONG, output=EVERY)
    with (tmp_path / "out.txt").open("w") as file:
        shell = console(run, output=file, **long_steps(tmp_path / "hook", 100.0))
    came, size = [], 0
    end = time.monotonic() + 230
    in_a_long_step(run)
    while time.monotonic() < end:
        now = (tmp_path / "out.txt").stat().st_size
        if now != size:
            came, size = [*came, time.monotonic()], now
        time.sleep(0.25)
    for one in [psutil.Process(shell.pid), run.process()]:
        one.kill()
    shell.wait()
    gaps = [later - earlier for earlier, later in pairwise([*came, end])]
    assert max(gaps) <= 60, gaps
