"""SIGTERM and the like, as service managers, containers, terminals and people send them: stopped, saved, resumable."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import Request, urlopen

import psutil
import pytest
from endings import begun, console, is_saved, steps
from site_at_work import Site, quick_run, until

from trainer.contract.home import CHECKOUT, Home
from trainer.runs import process
from trainer.runs.queue import Queue

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows sends no signals")
LONG = {"views": 2000}
SLOW = {**LONG, "accumulation": 128}  # a step takes seconds
ENDINGS = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT]


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda one: one.name)
def test_a_trainer_that_is_asked_to_end_finishes_its_step_and_saves(new_run, ending):
    run = new_run(dataset=LONG)
    child = process.start(run)
    begun(run)
    child.send_signal(ending)
    assert child.wait(60) == 0, run.log_file.read_text()
    is_saved(run)
    assert run.view().ended.by_system
    assert "Traceback" not in run.log_file.read_text()


def test_a_trainer_that_is_terminated_while_it_loads_ends_as_stopped(new_run):
    run = new_run(dataset=LONG)
    child = process.start(run)
    time.sleep(0.3)  # its libraries take longer
    child.terminate()
    assert child.wait(60) == 0, run.log_file.read_text()
    assert run.status() == "stopped"
    assert not steps(run)


def test_what_is_terminated_twice_ends_at_once_and_says_so(new_run):
    run = new_run(dataset=SLOW)
    child = process.start(run)
    until(lambda: run.view().samples, "it trains")
    child.terminate()
    time.sleep(0.2)
    child.terminate()
    assert child.wait(60) == 2
    assert run.view().ended.code == "terminated"


def test_the_previews_are_cut_short_when_the_system_ends_a_trainer(new_run):
    run = new_run(dataset=LONG, preview={"prompts": ["ball"] * 12, "steps": 4, "width": 256, "height": 256})
    child = process.start(run)
    until(lambda: run.view().samples, "the first preview")
    child.terminate()
    assert child.wait(60) == 0
    is_saved(run)
    assert len(run.view().samples) < 12


def test_a_run_that_the_system_stopped_resumes_and_the_queue_waits_for_somebody(new_run):
    run, waiting = new_run(dataset=LONG), new_run()
    queue = Queue(run.home)
    child = process.start(run)
    queue.start(waiting)
    begun(run)
    child.terminate()
    assert child.wait(60) == 0
    assert queue.waiting() == [waiting]
    queue.take_over()
    assert queue.waiting() == [waiting], "the system would end it too"
    last = run.view().ended.step
    again = process.start(run)
    until(lambda: run.view().steps and run.view().steps[-1].step > last, "it goes on")
    again.terminate()
    assert again.wait(60) == 0
    is_saved(run)


def test_the_processes_of_a_group_save_together(new_run):
    """The one that starts them is told, as by its service, and all of them, as by a container that ends."""
    run = new_run(dataset={**LONG, "batch_size": 2}, model={"processes": 2})
    child = process.start(run)
    begun(run)
    for one in [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]:
        one.terminate()
    assert child.wait(120) == 0, run.log_file.read_text()
    is_saved(run)


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda one: one.name)
def test_a_console_that_is_asked_to_end_stops_its_training_and_saves(new_run, ending):
    run = new_run(dataset=LONG)
    with console(run) as shell:
        begun(run)
        shell.send_signal(ending)
        output, _ = shell.communicate(timeout=120)
    assert shell.returncode == 0, output
    is_saved(run)
    assert "Stopping after this step and saving" in output
    assert f"--resume {run.path.name}" in output
    assert "Error" not in output


def test_a_closed_terminal_counts_once(new_run):
    run = new_run(dataset=LONG)
    with console(run) as shell:
        begun(run)
        shell.send_signal(signal.SIGHUP)
        time.sleep(0.05)
        shell.send_signal(signal.SIGHUP)
        shell.communicate(timeout=120)
    is_saved(run)


def test_nohup_stays_nohup(new_run):
    run = new_run(dataset=LONG)
    with console(run, before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as shell:
        begun(run)
        shell.send_signal(signal.SIGHUP)
        time.sleep(1.0)
        assert shell.poll() is None
        assert run.asked_for("stop") is None
        shell.terminate()
        shell.communicate(timeout=120)
    is_saved(run)


def test_the_second_ctrl_c_ends_with_one_sentence(new_run):
    run = new_run(dataset=SLOW)
    with console(run) as shell:
        until(lambda: run.process() and run.events_file.exists(), "it has begun")
        shell.send_signal(signal.SIGINT)
        time.sleep(0.6)
        shell.send_signal(signal.SIGINT)
        output, _ = shell.communicate(timeout=120)
    assert shell.returncode == 130, output
    assert output.count("Ended at once.") == 1
    assert "Error" not in output
    assert "exit code" not in output
    assert run.process() is None


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.15, 0.3, 0.6])
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM], ids=lambda one: one.name)
def test_ctrl_c_at_any_moment_of_a_start_leaves_no_traceback(tmp_path, images, seconds, ending):
    given = ["doctor", str(images), "--home", str(tmp_path / "home")]
    command = [sys.executable, "-m", "trainer.console.main", *given]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as shell:
        time.sleep(0.1 + seconds)
        shell.send_signal(ending)
        output, _ = shell.communicate(timeout=60)
    assert "Traceback" not in output, output
    # Before our first line runs, and once all is said, the system's own answer counts
    assert shell.returncode in (0, 130, -ending), output


def test_a_run_into_a_file_has_plain_lines_and_no_bar(new_run, tmp_path):
    run = new_run()
    with (tmp_path / "out.txt").open("w") as file, console(run, output=file, FORCE_COLOR="1") as shell:
        assert shell.wait(120) == 0
    output = (tmp_path / "out.txt").read_text()
    assert all(line.isprintable() for line in output.splitlines()), output
    training = [line for line in output.splitlines() if line.startswith("Training: ")]
    assert re.match(r"Training: 1/\d+, loss [\d.]+, [\d.]+ s/step", training[1])
    total = run.view().steps[-1].step
    assert training[-1].startswith(f"Training: {total}/{total}")
    assert "━" not in output


@pytest.mark.parametrize("closed", [(1,), (0, 1, 2), (2,), (0,)], ids=str)
def test_a_training_needs_no_standard_streams(new_run, closed):
    run = new_run()
    with console(run, output=subprocess.DEVNULL, before=lambda: [os.close(number) for number in closed]) as shell:
        assert shell.wait(120) == 0
    assert run.status() == "completed"
    assert run.log_file.read_bytes().count(b"Training: ") == 0


def test_the_page_needs_no_standard_streams():
    """It refuses a port as ever; a traceback ends with another code."""
    command = [sys.executable, "-m", "app.ui", "--no-browser", "--port", "99999999"]
    ended = subprocess.run(command, cwd=CHECKOUT, preexec_fn=lambda: os.closerange(0, 3), check=False)
    assert ended.returncode == 2


def test_a_training_whose_output_nobody_reads_any_more_goes_on(new_run):
    run = new_run()
    shell = console(run)
    shell.stdout.readline()
    shell.stdout.close()  # as `| head -1` does
    assert shell.wait(120) == 0
    assert run.status() == "completed"


def test_the_page_ends_alone_and_the_training_continues(tmp_path, monkeypatch):
    """Also where the system's temporary folder does not exist."""
    monkeypatch.setenv("TMPDIR", "/nowhere")
    site = Site(tmp_path / "home")
    site.start()
    monkeypatch.delenv("TMPDIR")
    try:
        form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nx\r\n--x--\r\n'
        upload = Request(f"{site.url}/gradio_api/upload", form, {"Content-Type": "multipart/form-data; boundary=x"})  # noqa: S310
        with urlopen(upload) as answer:  # noqa: S310 - our own server
            assert Path(json.load(answer)[0]).is_relative_to(tmp_path / "home" / "temporary")
        run = quick_run(Home(tmp_path / "home"), "ana", dataset={"views": 2000})
        child = process.start(run)
        begun(run)
        site.process.terminate()
        assert site.process.wait(60) == 0
        seen = len(steps(run))
        until(lambda: len(steps(run)) > seen, "it continues")
        assert (tmp_path / "home" / "temporary").is_dir()
    finally:
        site.process.kill()
    child.terminate()
    assert child.wait(60) == 0
    is_saved(run)
