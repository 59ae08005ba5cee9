"""SIGTERM and SIGHUP to all that runs beside a training: captions, strips, conversions, the trainer that stands by."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest
from endings import begun, console, is_saved
from PIL import Image
from site_at_work import until

from trainer.captioning.catalogue import caption_settings
from trainer.captioning.jobs import MODULE, prepare
from trainer.contract.home import CHECKOUT
from trainer.runs import process

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows sends no signals")
BY_SYSTEM = [signal.SIGTERM, signal.SIGHUP]
LONG = {"views": 2000}
SLOW_CAPTIONS = """
import sys, time

if "trainer.engine.captioners.worker" in sys.orig_argv:
    from trainer.engine.captioners import opening

    plain = opening.open_captioner

    def slow(*given):
        caption = plain(*given)

        def slowly(item):
            time.sleep({seconds})
            return caption(item)

        return slowly

    opening.open_captioner = slow
"""


@pytest.fixture(params=BY_SYSTEM, ids=lambda one: one.name)
def ending(request):
    return request.param


@pytest.fixture
def folder(tmp_path):
    """Six images whose names can be captions."""
    place = tmp_path / "images"
    place.mkdir()
    for number in range(6):
        Image.new("RGB", (64, 48), (number * 40, 99, 99)).save(place / f"red_house_{number}.png")
    return place


def job_of(home, folder):
    return prepare(home, caption_settings({"folder": str(folder), "captioner": "file-names"}))


def gone(pid):
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def slow_captions(tmp_path, seconds):
    """The search path with which each caption takes so long."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(SLOW_CAPTIONS.format(seconds=seconds))
    return str(tmp_path / "hook")


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_captioning_that_is_ended_while_it_loads_is_stopped(home, folder, tmp_path, monkeypatch, ending, seconds):
    monkeypatch.setenv("PYTHONPATH", slow_captions(tmp_path, 2.0))  # so that it cannot be done by then
    job = job_of(home, folder)
    child = process.work(job, MODULE)
    time.sleep(seconds)
    child.send_signal(ending)
    assert child.wait(60) == 0, job.log_file.read_text()
    assert job.progress().status == "stopped"
    assert "Traceback" not in job.log_file.read_text()


@pytest.mark.parametrize("seconds", [2.0, pytest.param(30.0, marks=pytest.mark.slow)])
def test_captioning_finishes_its_image_and_killed_before_loses_only_that(home, folder, tmp_path, monkeypatch, seconds):
    monkeypatch.setenv("PYTHONPATH", slow_captions(tmp_path, seconds))
    job = job_of(home, folder)
    child = process.work(job, MODULE)
    until(lambda: len(job.results().done) == 1, "the first image")
    child.terminate()
    assert child.wait(seconds + 30) == 0
    assert (job.progress().status, job.progress().captioned) == ("stopped", 2)
    child = process.work(job_of(home, folder), MODULE)
    until(lambda: len(job.results().done) == 3, "the third image")
    child.terminate()
    time.sleep(seconds / 3)
    assert child.poll() is None
    child.kill()
    child.wait()
    assert (job.progress().status, job.progress().captioned) == ("interrupted", 3)
    monkeypatch.delenv("PYTHONPATH")
    assert process.work(job_of(home, folder), MODULE).wait(60) == 0
    assert (job.progress().status, job.progress().captioned) == ("completed", 6)
    assert not list(home.root.rglob("*.part"))


def test_captioning_that_is_ended_twice_ends_at_once(home, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", slow_captions(tmp_path, 30.0))
    job = job_of(home, folder)
    child = process.work(job, MODULE)
    until(lambda: job.progress().phase == "caption", "the first image begins")
    child.terminate()
    time.sleep(0.3)
    child.terminate()
    assert child.wait(10) == 130
    assert job.progress().status == "interrupted"
    assert "Traceback" not in job.log_file.read_text()


@pytest.fixture
def finished(new_run):
    """A run with a LoRA file, and that file's name."""
    run = new_run(dataset={"views": 1}, output={"files": 1})
    assert process.start(run).wait(120) == 0
    (file,) = run.path.glob("*.safetensors")
    (run.path / f"{file.stem}.strength.png").unlink()
    return run, file.name


def test_a_strip_that_is_ended_is_not_there_and_nothing_else_is(finished):
    run, file = finished
    before = {path.name for path in run.path.iterdir()}
    for ending, seconds in ((signal.SIGTERM, 0.0), (signal.SIGHUP, 0.3), (signal.SIGTERM, 3.0)):
        child = process.generate_strip(run, file)
        time.sleep(seconds)
        child.send_signal(ending)
        time.sleep(0.05)
        child.send_signal(ending)
        assert child.wait(60) == 130, run.log_file.read_text()
    assert {path.name for path in run.path.iterdir()} == before
    assert "Traceback" not in run.log_file.read_text()


CONVERSION = """
import signal, sys, time
from trainer.contract import stops
from trainer.tools import convert

plain = convert.save_file

def slow(tensors, path, metadata):
    "As the real one, hears nothing until it has written all."
    signal.pthread_sigmask(signal.SIG_BLOCK, stops.ASKING)
    plain(tensors, path, metadata)
    print("writing", flush=True)
    time.sleep(1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stops.ASKING)

convert.save_file = slow
sys.exit(convert.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("endings", [[signal.SIGTERM], [signal.SIGHUP], [signal.SIGINT, signal.SIGTERM]], ids=str)
def test_a_conversion_that_is_ended_while_it_writes_leaves_nothing(tmp_path, endings):
    """Ctrl-C in a terminal reaches it twice: from the terminal, and as SIGTERM from the console."""
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.ones(10**5)}, tmp_path / "a.ckpt")
    command = [sys.executable, "-c", CONVERSION, str(tmp_path / "a.ckpt"), str(tmp_path / "a.safetensors")]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "writing\n"
        for one in endings:
            child.send_signal(one)
        _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


@pytest.mark.parametrize("to_both", [True, False], ids=["Ctrl-C", "SIGTERM"])
def test_a_console_that_is_ended_while_it_converts_says_so_in_a_sentence(tmp_path, to_both):
    """Also in the first moment of the process that converts, which Ctrl-C in a terminal reaches too."""
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.ones(10)}, tmp_path / "a.ckpt")
    command = [sys.executable, "-m", "trainer.console.main", "convert", str(tmp_path / "a.ckpt")]
    with subprocess.Popen(
        command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as shell:
        until(lambda: psutil.Process(shell.pid).children(), "the process that converts")
        time.sleep(0.1)
        os.killpg(shell.pid, signal.SIGINT) if to_both else shell.terminate()
        said, _ = shell.communicate(timeout=60)
    assert shell.returncode == 130, said
    assert said.endswith("Stopped; nothing was written.\n")
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


@pytest.fixture
def standby():
    """The trainer that stands by."""
    process.stand_down()
    process.stand_by()
    yield process._ready[0]
    process.stand_down()


def loaded(child):
    """It waits for a run: it has not used the processor for a while."""
    one = psutil.Process(child.pid)

    def idle():
        before = sum(one.cpu_times()[:2])
        time.sleep(0.5)
        return before > 1 and sum(one.cpu_times()[:2]) == before

    until(idle, "it has loaded its libraries")


def test_who_stands_by_and_is_ended_ends(standby, ending, new_run):
    loaded(standby)
    standby.send_signal(ending)
    assert standby.wait(10) == 130
    run = new_run(dataset={"views": 1})
    assert process.start(run).wait(120) == 0


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_who_has_just_got_a_run_and_is_ended_ends_it_as_stopped(standby, ending, new_run, seconds):
    time.sleep(0.5)
    run = new_run(dataset=LONG)
    child = process.start(run)
    assert child is standby
    time.sleep(seconds)
    child.send_signal(ending)
    assert child.wait(60) == 0, run.log_file.read_text()
    assert run.status() == "stopped"
    assert run.view().ended.by_system


def test_the_launcher_is_the_console_that_it_starts(new_run, ending):
    run = new_run(dataset=LONG)
    with console(run, program=[str(CHECKOUT / "launch.py")]) as shell:
        begun(run)
        trainer = run.process()
        shell.send_signal(ending)
        output, _ = shell.communicate(timeout=120)
    assert shell.returncode == 0, output
    assert gone(trainer.pid)
    is_saved(run)


SET_UP = """
import launch, sys

work = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
launch.environment = lambda _: launch.step("A long step", [sys.executable, "-c", work])
sys.exit(launch.main([]))
"""


def test_a_set_up_that_is_ended_ends_its_step_too(ending):
    with subprocess.Popen(
        [sys.executable, "-c", SET_UP], cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as shell:
        assert shell.stdout.readline() == "- A long step\n"
        step = int(shell.stdout.readline())
        shell.send_signal(ending)
        output, _ = shell.communicate(timeout=30)
    assert shell.returncode == 130, output
    assert "The set-up stopped." in output
    assert "Traceback" not in output
    until(lambda: gone(step), "the step ends")
