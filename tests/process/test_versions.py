"""What an older version of ours wrote is read; what a newer one wrote is refused in a sentence, and left alone."""

import json
import shutil
from pathlib import Path

import pytest

from trainer.__main__ import main
from trainer.contract.errors import InvalidSettings
from trainer.contract.events import RunFailed, RunStarted, read_events
from trainer.contract.home import Home
from trainer.contract.presets import load_preset
from trainer.runs import process
from trainer.runs.errors import NewerVersion
from trainer.runs.folder import RunFolder
from trainer.runs.queue import Queue

OLD = Path(__file__).parents[1] / "fixtures" / "versions" / "0.1"


@pytest.fixture
def old(tmp_path, tiny_model):
    """The run of version 0.1, in a home of its own."""
    home = Home(shutil.copytree(OLD / "home", tmp_path / "home", ignore=shutil.ignore_patterns("queue.json")))
    run = RunFolder(home.runs / "ball")
    text = run.config_file.read_text(encoding="utf-8")
    run.config_file.write_text(text.replace("BASE", str(tiny_model)).replace("PICTURES", str(OLD / "pictures")))
    return run


@pytest.fixture
def queue(old):
    """The queue of version 0.1, in which that run waits."""
    shutil.copy(OLD / "home" / "queue.json", old.home.queue_file)
    return Queue(old.home)


def events(run, kind):
    return [event for event in read_events(run.events_file)[0] if isinstance(event, kind)]


def test_an_older_versions_run_is_shown_and_gone_on_with_from_its_checkpoint(old):
    before = old.view()
    assert [step.step for step in before.steps] == [1, 2]
    assert main([str(old.path)]) == 0
    assert events(old, RunStarted)[-1].resumed_at == 2
    assert [step.step for step in old.view().steps] == [1, 2, 3]
    assert (old.path / "ball.safetensors").is_file()


def test_a_switch_that_has_become_a_choice_is_read_as_that(old):
    assert old.config().model.gradient_checkpointing == "full"
    assert load_preset("mine", old.home.presets).values["model"] == {"gradient_checkpointing": "full"}


def test_an_older_versions_queue_is_read(queue, old):
    assert queue.waiting() == [old]


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return file.read_bytes()


def test_a_newer_versions_checkpoint_is_refused_and_stays(old):
    state = old.checkpoints / "000002" / "state.json"
    written = change(state, format=99, something_new=True)
    assert main([str(old.path)]) == 2
    (failure,) = events(old, RunFailed)
    assert failure.code == "newer_version"
    assert "000002 was written by a newer version of Atelier (format 99" in failure.message
    assert "Update Atelier" in failure.hint
    assert state.read_bytes() == written


def test_a_run_that_a_newer_version_tells_of_is_not_started(old):
    line = old.events_file.read_text().splitlines()[-2]
    with old.events_file.open("a") as log:
        log.write(json.dumps(json.loads(line) | {"v": 2, "seq": 99}) + "\n")
    with pytest.raises(NewerVersion, match="ball was written by a newer version"):
        process.start(old)
    assert not old.process_file.exists()


def test_a_newer_versions_queue_is_not_written_over(queue, old):
    written = change(old.home.queue_file, v=2)
    with pytest.raises(NewerVersion, match=r"queue\.json was written by a newer version"):
        queue.remove(old)
    assert old.home.queue_file.read_bytes() == written


def test_a_newer_versions_settings_are_named(old):
    old.config_file.write_text(old.config_file.read_text().replace("[model]", "[model]\nquantum = true"))
    with pytest.raises(InvalidSettings, match=r"There is no setting model\.quantum"):
        old.config()
