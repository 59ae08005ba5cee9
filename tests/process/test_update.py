"""A checkout of an earlier version is updated in place while it trains: nothing is lost, and the queue is trained on.

It needs the history that holds that version: `python launch.py test -n0 -m slow tests/process/test_update.py`.
"""

import json
import os
import subprocess
import sys

import pytest
from gradio_client import Client
from site_at_work import QUICK, Site, failure, reached, until

from trainer.contract.events import RunStarted, read_events
from trainer.contract.home import CHECKOUT, Home
from trainer.runs import process
from trainer.runs.folder import RunFolder

pytestmark = pytest.mark.slow
EARLIER = "da95048"  # before the modules moved and settings were renamed
# Run by that version: a paused run, one that trains, and one that waits; a preset of the user's
BEGIN = """
import json, sys
from pathlib import Path
from trainer.contract.home import Home
from trainer.contract.presets import save_preset
from trainer.contract.process import start
from trainer.contract.queue import Queue
from trainer.contract.runs import RunFolder
from trainer.contract.settings import validated
from trainer import loop
from trainer.__main__ import main

home, runs = Home.find(), {}
for name, views in (("paused", 8), ("training", 4000), ("waiting", 2)):
    values = json.loads(sys.argv[1])
    values["output"]["name"], values["dataset"]["views"] = name, views
    values["model"]["checkpointing"] = "full"
    runs[name] = RunFolder.create(home, validated(values))
save_preset(home.presets, "mine", runs["paused"].config(), "of an earlier version")
rest = loop.rest
def pausing(training):
    runs["paused"].request("pause")
    rest(training)
loop.rest = pausing
assert main([str(runs["paused"].path)]) == 0 and runs["paused"].status() == "paused"
assert Queue(home).start(runs["training"]) and not Queue(home).start(runs["waiting"])
print(json.dumps([run.path.name for run in runs.values()]))
"""


def git(*arguments, **options):
    return subprocess.run(["git", *arguments], capture_output=True, text=True, **options)  # noqa: S607


def python(checkout, *arguments):
    """What Python prints when it runs this in a checkout, its own modules and home."""
    environment = {key: value for key, value in os.environ.items() if key != "ATELIER_HOME"}
    environment |= {"PYTHONPATH": str(checkout), "PYTHONUTF8": "1", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def checkout(tmp_path):
    """A checkout of the earlier version; its trainings end with the test."""
    if git("cat-file", "-e", f"{EARLIER}^{{commit}}", cwd=CHECKOUT).returncode:
        pytest.skip(f"Git's history does not hold commit {EARLIER}")
    folder = tmp_path / "Atelier ä"
    git("clone", "--quiet", "--no-checkout", CHECKOUT, folder, check=True)
    git("checkout", "--quiet", EARLIER, cwd=folder, check=True)
    yield folder
    Home(folder).queue_file.unlink(missing_ok=True)
    for run in RunFolder.all(Home(folder)):
        process.force_quit(run)


@pytest.fixture
def page(checkout):
    """The page of that checkout, not yet started."""
    site = Site(checkout)
    site.checkout = checkout
    yield site
    site.process.terminate()
    site.process.wait()


def test_an_update_while_a_training_runs_loses_nothing(checkout, page):
    names = json.loads(python(checkout, "-c", BEGIN, json.dumps(QUICK)).splitlines()[-1])
    paused, training, waiting = (RunFolder(checkout / "runs" / name) for name in names)
    until(lambda: reached(training, 3), "it trains")

    now = git("rev-parse", "HEAD", cwd=CHECKOUT, check=True).stdout.strip()
    git("checkout", "--quiet", now, cwd=checkout, check=True)
    assert "mine" in python(checkout, "-m", "trainer.console.main", "--list-presets")
    python(checkout, "-m", "trainer.console.main", "--models")
    page.start()
    client = Client(page.url, verbose=False)
    states = {one["run"]: one["state"] for one in client.predict(api_name="/runs")}
    assert states == dict(zip(names, ("paused", "running", "waiting"), strict=True))
    assert client.predict(api_name="/queue") == [waiting.path.name]

    done = training.view().steps[-1].step  # the earlier version's trainer has its modules in memory
    until(lambda: reached(training, done + 3), "it trains on")
    for what in ("sample", "save", "stop"):
        client.predict(run=training.path.name, api_name=f"/{what}")
    until(lambda: training.status() == "stopped", f"it stops: {failure(training)}")
    assert list(training.path.glob("training*.safetensors"))
    until(lambda: waiting.status() == "completed", f"it hands over to the new version's: {failure(waiting)}")

    for run, ending in ((paused, "completed"), (training, "stopped")):
        ended = run.view().ended.step
        client.predict(run=run.path.name, api_name="/resume")
        until(lambda run=run, step=ended: reached(run, step + 1), f"it resumes: {failure(run)}")
        started = [event for event in read_events(run.events_file)[0] if isinstance(event, RunStarted)]
        assert [event.resumed_at for event in started] == [0, ended]
        if ending == "stopped":
            run.request("stop")
        until(lambda run=run, ending=ending: run.status() == ending, f"it ends: {failure(run)}")
    assert [step.step for step in paused.view().steps] == list(range(1, 17))
    assert page.complaints() == ""
