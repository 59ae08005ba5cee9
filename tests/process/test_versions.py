"""What an older version of ours wrote is read; what a newer one wrote is refused in a sentence, and left alone."""

import inspect
import json
import shutil
from pathlib import Path

import pytest

from app.api import register
from app.live.monitor import Watches
from trainer.__main__ import main
from trainer.console.flags import given_settings
from trainer.console.main import parsed
from trainer.contract.errors import InvalidSettings
from trainer.contract.events import Phase, RunFailed, RunStarted, read_events
from trainer.contract.home import Home
from trainer.contract.presets import load_preset
from trainer.contract.settings.config import validated
from trainer.contract.toml import RENAMED, flat
from trainer.dataset.overlay import Entry, entries_of, overlay_file, undo
from trainer.runs import process
from trainer.runs.errors import NewerVersion
from trainer.runs.folder import RunFolder
from trainer.runs.queue import Queue

VERSIONS = Path(__file__).parents[1] / "fixtures" / "versions"
OLD = VERSIONS / "0.1"
# Settings that were renamed after 0.2, with the values that its run was given
EARLIER = {
    "dataset.protect": True,
    "dataset.protect_prompt": "a box",
    "dataset.protect_pictures": 2,
    "dataset.protect_share": 0.5,
    "model.checkpointing": "full",
    "model.stream": "off",
    "optimizer.schedule": "linear",
}


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


# 0.2: before settings got the names they have today


@pytest.fixture
def images(tmp_path):
    return shutil.copytree(OLD / "pictures", tmp_path / "pictures")


@pytest.fixture
def second(tmp_path, tiny_model, images):
    """The run of version 0.2, in a home of its own."""
    home = Home(shutil.copytree(VERSIONS / "0.2" / "home", tmp_path / "home"))
    run = RunFolder(home.runs / "ball")
    for file in (run.config_file, run.events_file, home.presets / "mine.toml"):
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace("BASE", str(tiny_model)).replace("PICTURES", str(images)), encoding="utf-8")
    (home.root / "datasets" / "pictures").rename(overlay_file(home, images).parent)
    return run


def todays(config):
    """The values of the settings that were renamed, by their earlier names."""
    return {old: flat(config)[new] for old, new in RENAMED.items()}


def class_images(home):
    """The generated class images; one that is written again is another file."""
    return {path.name: path.stat().st_ino for path in home.cache.glob("drawn/*.png")}


def test_settings_under_earlier_names_are_read_as_those_of_today(second):
    assert EARLIER.keys() == RENAMED.keys()
    assert todays(second.config()) == EARLIER
    preset = load_preset("mine", second.home.presets)
    assert todays(validated(preset.values)) == EARLIER


def test_a_run_with_earlier_names_is_shown_and_resumes_with_the_class_images_it_has(second):
    events_seen, _, damaged = read_events(second.events_file)
    assert damaged == 0
    assert [event.done for event in events_seen if isinstance(event, Phase) and event.name == "protect"] == [1, 2]
    assert second.status() == "paused"
    assert [step.step for step in second.view().steps] == [1, 2]
    assert Queue(second.home).waiting() == [second]
    Queue(second.home).remove(second)
    generated = class_images(second.home)
    assert main([str(second.path)]) == 0
    assert events(second, RunStarted)[-1].resumed_at == 2
    assert [step.step for step in second.view().steps] == list(range(1, 7))
    assert (second.path / "ball.safetensors").is_file()
    assert class_images(second.home) == generated


def test_an_older_versions_changes_to_images_hold_and_can_be_undone(second, images):
    assert entries_of(second.home, images) == {"picture 0.png": Entry(text="ball, changed here", focus=(0.25, 0.75))}
    undo(second.home, images)
    assert entries_of(second.home, images) == {}


def test_flags_under_earlier_names_are_read():
    flags = [word for name, value in EARLIER.items() for word in (f"--{name}", str(value))]
    assert todays(validated(given_settings(parsed(flags)[1]))) == EARLIER


def test_programs_may_use_parameters_under_earlier_names(second, images, in_blocks, monkeypatch):
    endpoints = {}
    monkeypatch.setattr("app.api.api", lambda act, api_name: endpoints.update({api_name: act}))
    monkeypatch.setattr(process, "start", lambda _run: None)
    second.home.queue_file.unlink()
    in_blocks(lambda: register(second.home, Watches()))
    given = {name.replace(".", "_"): value for name, value in EARLIER.items()}
    given |= {"preset": "pocket-style", "dataset_images": str(images)}
    name = endpoints["start"](*map(given.get, inspect.signature(endpoints["start"]).parameters))
    assert todays(RunFolder.named(second.home, name).config()) == EARLIER
