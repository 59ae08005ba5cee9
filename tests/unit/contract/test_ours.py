"""Nothing in a folder of ours leads elsewhere, or nothing is done in it."""

import re
import sys

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
from trainer.contract.settings.config import validated
from trainer.dataset.overlay import Entry, change, overlay_file
from trainer.runs import process
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


@pytest.mark.usefixtures("untouched")
def test_a_sweep_takes_no_link_and_nothing_of_others(tmp_path, theirs):
    (tmp_path / ".a.png.1.x.part").symlink_to(theirs)
    (tmp_path / ".download.part").write_text("theirs")
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.png.1.x.part", ".download.part", "theirs"]


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
def test_one_strange_run_is_one_bad_card(home, run, theirs, kind):
    good = RunFolder.create(home, validated({"output": {"name": "ben"}}))
    place(run.events_file, kind, theirs)
    states = {glance.name: glance.state for glance in (look(one, Watches()) for one in RunFolder.all(home))}
    assert states == {run.path.name: "damaged", good.path.name: "waiting"}
    assert str(run.events_file) in look(run, Watches()).problem
    assert Feed(home, Watches()).watch(run.path.name) is None
