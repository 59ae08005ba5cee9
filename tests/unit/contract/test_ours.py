"""Nothing in a folder of ours leads elsewhere, or nothing is done in it."""

import os
import re
import sys
import time

import pytest
from strange import IN_A_RUN, KINDS, contents, place, somebodys

from app.live.feed import Feed
from app.live.monitor import Watches
from app.runs.cards import look
from trainer.contract.errors import TrainerError
from trainer.contract.events import EventLog, read_events
from trainer.contract.files import append_line, sweep
from trainer.contract.home import Home
from trainer.contract.ours import NotOurs, check_all, open_plain, read_plain
from trainer.contract.presets import list_presets, save_preset
from trainer.contract.settings.config import validated
from trainer.dataset.overlay import Entry, change, overlay_file
from trainer.projects.sets import keep_dropped
from trainer.runs import process
from trainer.runs.errors import RunMissing
from trainer.runs.folder import RunFolder
from trainer.runs.queue import Queue

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and sockets have no names there")


@pytest.fixture
def theirs(tmp_path):
    return somebodys(tmp_path / "theirs")


@pytest.fixture
def untouched(theirs):
    """At the end everything of theirs is as it was."""
    before = contents(theirs)
    yield
    assert contents(theirs) == before
    assert not (theirs / "not there").exists()


@pytest.fixture
def run(home):
    return RunFolder.create(home, validated({"output": {"name": "ana"}}))


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", IN_A_RUN)
def test_a_run_with_something_strange_in_its_folder_is_not_trained(run, theirs, name, kind):
    place(run.path / name, kind, theirs)
    before = sorted(run.path.rglob("*"))
    with pytest.raises(NotOurs, match=re.escape(name)) as refused:
        process.start(run)
    assert isinstance(refused.value, TrainerError)
    assert sorted(run.path.rglob("*")) == before


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("name", ["log.txt", "events.jsonl"])
def test_what_is_added_to_has_no_second_name(run, theirs, name):
    place(run.path / name, "hard link", theirs)
    with pytest.raises(NotOurs, match="second name"):
        append_line(run.path / name, b"a line")


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("name", [".lock", "log.txt", "events.jsonl"])
def test_a_second_name_is_refused_before_the_start(run, theirs, name):
    place(run.path / name, "hard link", theirs)
    with pytest.raises(NotOurs, match="second name"):
        process.start(run)


@pytest.mark.usefixtures("untouched")
def test_the_locks_of_queue_and_edits_have_no_second_name(home, run, images, theirs):
    lock = overlay_file(home, images).with_name(".lock")
    for path in (home.root / ".queue.lock", lock):
        place(path, "hard link", theirs)
    with pytest.raises(NotOurs, match="second name"):
        Queue(home).start(run)
    with pytest.raises(NotOurs, match="second name"):
        change(home, images, {"image 0.png": Entry(text="a ball")})


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("kind", KINDS)
def test_a_preview_that_is_none_is_not_waited_for(run, theirs, kind):
    place(run.samples / "000000-0.png", kind, theirs)
    with pytest.raises((NotOurs, RunMissing)):
        run.inside("samples/000000-0.png")


def test_a_preview_by_a_linked_folder_is_refused_within_the_run_too(run):
    (run.path / "other").mkdir()
    (run.path / "other" / "000000-0.png").touch()
    run.samples.symlink_to(run.path / "other")
    with pytest.raises(NotOurs, match="samples is a link"):
        run.inside("samples/000000-0.png")


@pytest.mark.parametrize("kind", KINDS)
def test_a_preset_that_is_no_file_is_named_and_the_others_are_listed(home, theirs, kind):
    save_preset(home.presets, "good", validated({}), "")
    place(home.presets / "odd.toml", kind, theirs)
    usable, broken = list_presets(home.presets)
    assert [preset.name for preset in usable] == ["good"]
    assert ["odd.toml" in error.message for error in broken] == [True]


@pytest.mark.parametrize("kind", KINDS)
def test_a_log_that_is_none_is_not_waited_for(run, theirs, kind):
    place(run.events_file, kind, theirs)
    with pytest.raises(NotOurs):
        read_events(run.events_file)
    with pytest.raises(NotOurs):
        EventLog(run.events_file)
    with pytest.raises(NotOurs):
        run.view()


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("kind", KINDS)
def test_a_strange_process_file_is_no_process(run, theirs, kind):
    place(run.process_file, kind, theirs)
    assert run.process() is None


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("name", ["control", "control/stop"])
def test_a_request_is_not_written_through_a_link(run, theirs, name):
    place(run.path / name, "link to a folder" if name == "control" else "dangling link", theirs)
    with pytest.raises(NotOurs):
        run.request("stop")


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("name", [".queue.lock", "queue.json"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_queue_is_no_link(home, run, theirs, name, kind):
    place(home.root / name, kind, theirs)
    with pytest.raises(NotOurs, match=re.escape(name)):
        Queue(home).start(run)
    assert not run.log_file.exists()


def test_a_run_outside_of_a_home_makes_none_of_its_surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
    kept = RunFolder.create(Home(tmp_path / "home"), validated({"output": {"name": "ana"}}))
    assert kept.home == Home(tmp_path / "home")
    moved = kept.path.rename(tmp_path / "ana")
    assert RunFolder(moved).home == Home(tmp_path / "home")


@pytest.mark.parametrize("around", ["ana", "elsewhere/ana", "elsewhere/runs/ana"])
def test_a_run_belongs_to_the_home_it_was_looked_for_in(home, run, tmp_path, around):
    moved = tmp_path / "some where" / around
    moved.parent.mkdir(parents=True)
    run.path.rename(moved)
    assert RunFolder.find(home, str(moved)).home == home


@pytest.mark.parametrize("name", ["runs/ana", "strange/ana"])
def test_what_lies_around_a_run_from_elsewhere_is_not_tidied_up_when_it_is_trained(home, tmp_path, name):
    run = RunFolder.create(
        home, validated({"output": {"name": "ana"}, "model": {"base_model": str(tmp_path / "none")}})
    )
    moved = tmp_path / "some where" / name
    left = moved.parents[1] / "cache" / f".a.png.{os.getpid()}.x.part"  # ours to delete only in our own cache
    for path in (moved, left):
        path.parent.mkdir(parents=True, exist_ok=True)
    left.write_text("theirs")
    os.utime(left, (time.time() - 7200,) * 2)
    run.path.rename(moved)
    process.start(RunFolder.find(home, str(moved))).wait(timeout=120)
    assert moved.joinpath("events.jsonl").exists(), moved.joinpath("log.txt").read_text()
    assert left.read_text() == "theirs"
    assert sorted(path.name for path in left.parents[1].iterdir()) == ["cache", moved.parent.name]


def test_the_folder_of_runs_may_lie_on_another_disk(home, tmp_path):
    disk = tmp_path / "disk" / "runs"
    disk.mkdir(parents=True)
    home.root.mkdir(exist_ok=True)
    home.runs.symlink_to(disk)
    run = RunFolder.create(home, validated({"output": {"name": "ana"}}))
    found = [run, *RunFolder.all(home)]
    found += [RunFolder.find(home, str(path)) for path in (run.path.name, run.path, disk / run.path.name)]
    found.append(RunFolder.named(home, run.path.name))
    assert found == [run] * 6
    assert [one.home for one in found] == [home] * 6


@pytest.mark.usefixtures("untouched")
def test_a_sweep_takes_no_link_and_nothing_of_others(tmp_path, theirs):
    (tmp_path / ".a.png.1.x.part").symlink_to(theirs)
    (tmp_path / ".c.png.1.x.part").symlink_to(theirs / "letter.txt")
    os.utime(theirs / "letter.txt", (0, 0))
    names = [".download.part", ".movie.mkv.part", ".a.proof", ".backup-old.part/a.txt", ".b.png.1.x.part/a.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("theirs")
    before = sorted(tmp_path.rglob("*"))
    for alone in (False, True):
        sweep(tmp_path, alone)
        assert sorted(tmp_path.rglob("*")) == before


def test_plain_files_are_read_and_added_to(tmp_path):
    with open_plain(tmp_path / "log", "a+b") as file:
        file.write(b"one\n")
    append_line(tmp_path / "log", b"two")
    assert read_plain(tmp_path / "log") == b"one\ntwo\n"
    check_all(tmp_path)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("name", ["", ".lock", "metadata.jsonl", "history.jsonl"])
@pytest.mark.parametrize("kind", KINDS)
def test_edits_are_not_written_through_a_link(home, images, theirs, name, kind):
    overlay = overlay_file(home, images).parent
    place(overlay / name if name else overlay, kind, theirs)
    with pytest.raises(NotOurs):
        change(home, images, {"image 0.png": Entry(text="a ball")})


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["", "b.png", "c.txt"])
def test_dropped_files_are_not_added_to_a_folder_that_leads_elsewhere(home, tmp_path, theirs, name, kind):
    (tmp_path / "a.png").write_bytes(b"a")
    made = home.root / "datasets" / "dropped-1"
    place(made / name if name else made, kind, theirs)
    with pytest.raises(NotOurs):
        keep_dropped(home, [tmp_path / "a.png"], made)
    assert not (made / "a.png").exists()


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("kind", KINDS)
def test_one_strange_run_is_one_bad_card(home, run, theirs, kind):
    good = RunFolder.create(home, validated({"output": {"name": "ben"}}))
    place(run.events_file, kind, theirs)
    states = {glance.name: glance.state for glance in (look(one, Watches()) for one in RunFolder.all(home))}
    assert states == {run.path.name: "damaged", good.path.name: "waiting"}
    assert str(run.events_file) in look(run, Watches()).problem
    assert Feed(home, Watches()).watch(run.path.name) is None
