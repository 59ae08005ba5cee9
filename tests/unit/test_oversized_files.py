"""A file of one run that is far too large, or garbage, takes nothing away from the others: the kind, file by file."""

import errno
import json
import tracemalloc
from types import SimpleNamespace

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.api import _known_of
from app.desk.models import earlier
from app.live.feed import Feed
from app.live.monitor import Watch, Watches
from app.live.parts import log_tail
from app.runs.page import Runs
from app.server.files import routes, thumbnail_url
from trainer.contract import summary
from trainer.contract.errors import InvalidSettings, TrainerError
from trainer.contract.events import EventLog, Phase, RunFinished, Step
from trainer.contract.home import Home
from trainer.contract.ours import FileTooLarge, read_plain
from trainer.contract.presets import FOLDER, import_preset, list_presets
from trainer.contract.settings.config import validated
from trainer.planning.estimate import estimate
from trainer.runs.folder import RunFolder
from trainer.runs.queue import Queue

TERABYTE, MIB = 2**40, 2**20
STEP = {"epoch": 1.0, "loss": 0.25, "lr": 1e-4, "grad_norm": 0.5, "seconds": 0.4, "memory_gib": 1.0}


def huge(path, size=TERABYTE):
    """Make a file of so many zeros, which take no room on the disk."""
    path.parent.mkdir(exist_ok=True)
    try:
        with path.open("ab") as file:
            file.truncate(size)
    except OSError as error:
        if error.errno not in (errno.EFBIG, errno.ENOSPC, errno.EINVAL):
            raise
        pytest.skip("no file is so large here")


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path.resolve() / "home")


@pytest.fixture
def good(home):
    return new(home, "good")


@pytest.fixture
def bad(home, good):
    assert good.path.parent == home.runs
    return new(home, "bad")


def new(home, name):
    run = RunFolder.create(home, validated({"output": {"name": name}}))
    with EventLog(run.events_file) as log:
        log.write(Step(step=1, **STEP))
        log.write(RunFinished(reason="completed", step=1, seconds=1.0))
    return run


def cards(home):
    """The Runs page's cards, newest first."""
    _, html, *_ = Runs(home, Watches()).show(9, None, SimpleNamespace(headers={}))
    return html.split("<li ")[1:]


OF_THE_RUN = [
    "events.jsonl",
    "config.toml",
    "log.txt",
    "process.json",
    "events.summary",
    "control/stop",
    "x.strength.png",
]


@pytest.mark.parametrize("name", OF_THE_RUN)
def test_a_file_of_a_terabyte_makes_one_bad_card_at_most(home, good, bad, name):
    huge(bad.path / name)
    bad_card, good_card = cards(home)
    assert "run-damaged" not in good_card
    assert "0.250" in good_card or "Completed" in good_card
    assert ("run-damaged" in bad_card) == (name in ("events.jsonl", "config.toml"))
    feed = Feed(home, Watches())
    assert b"Completed" in feed.answer(good.path.name, "", "en")
    assert feed.answer(bad.path.name, "", "en")
    states = {one["run"]: one["state"] for one in (_known_of(Watches(), run) for run in RunFolder.all(home))}
    assert states[good.path.name] == "completed"
    assert states[bad.path.name] == ("damaged" if name == "events.jsonl" else "completed")


@pytest.mark.parametrize("name", OF_THE_RUN)
def test_the_queue_and_the_plan_of_the_next_run_go_on(home, good, bad, name):
    huge(bad.path / name)
    Queue(home).take_over()
    assert Queue(home).active() is None
    assert estimate(home, good.config()).seconds_per_step == 0.4
    assert len(list(earlier(home))) == (1 if name == "config.toml" else 2)


def test_what_cannot_be_read_is_named_with_its_size(bad):
    huge(bad.events_file)
    with pytest.raises(FileTooLarge, match=r"events\.jsonl holds 1.*and a file of this name has at most"):
        Watch(bad).tick()
    with pytest.raises(FileTooLarge):
        bad.view()
    with pytest.raises(FileTooLarge), bad.alone():  # nothing is begun that could not be written down
        pass
    huge(bad.config_file)
    with pytest.raises(InvalidSettings, match=r"config\.toml is a binary file"):
        bad.config()
    assert bad.config_file.stat().st_size == TERABYTE


def test_the_queues_file_of_a_terabyte_is_an_empty_queue(home):
    home.root.mkdir()
    huge(home.queue_file)
    assert Queue(home).waiting() == []
    with pytest.raises(FileTooLarge):
        read_plain(home.queue_file)


def test_a_preset_of_a_terabyte_is_named_and_leaves_the_others(home):
    home.presets.mkdir(parents=True)
    huge(home.root / "other.toml")
    with pytest.raises(InvalidSettings, match="is a binary file"):
        import_preset(home.presets, home.root / "other.toml")
    assert list(home.presets.iterdir()) == []
    huge(home.presets / "mine.toml")
    usable, (broken,) = list_presets(home.presets, FOLDER)
    assert len(usable) > 1
    assert "is a binary file" in broken.message


def test_a_preview_of_a_terabyte_is_a_placeholder(home, bad):
    Image.new("RGB", (8, 8)).save(bad.path / "good.png")
    huge(bad.samples / "0.png")
    client = TestClient(Starlette(routes=routes(home)))
    placeholder = client.get(thumbnail_url(bad.samples / "none.png")).content
    assert client.get(thumbnail_url(bad.samples / "0.png")).content == placeholder
    assert client.get(thumbnail_url(bad.path / "good.png")).content != placeholder


def garbage(kind):
    """Lines that are no events, and one that is."""
    event = json.dumps({"type": "step", "step": 7, **STEP}).encode()
    junk = {
        "nulls": bytes(64 * MIB),
        "one long line": b"x" * 64 * MIB,
        "one long text": b'{"type": "phase", "name": "' + b"x" * 64 * MIB,
        "many lines": b"x\n" * 400_000,
        "many empty lines": b"\n" * 4 * MIB,
        "lists in lists": b"[" * 8 * MIB,
        "random bytes": bytes(range(256)) * 4096,
    }[kind]
    return junk + b"\n" + event + b"\n"


@pytest.mark.parametrize(
    "kind",
    ["nulls", "one long line", "one long text", "many lines", "many empty lines", "lists in lists", "random bytes"],
)
def test_garbage_in_a_log_is_passed_over_in_little_memory(home, bad, kind):
    bad.events_file.write_bytes(garbage(kind))
    watches = Watches()
    tracemalloc.start()
    try:
        watch = watches.whole(bad)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (watch.step, len(watch.view.steps)) == (7, 1)
    assert most < 40 * MIB
    assert len(cards(home)) == 2
    with EventLog(bad.events_file) as log:  # and the run can be resumed
        log.write(Phase(name="train", done=0, total=1))
    assert bad.view().phase.name == "train"


def test_the_end_of_a_long_output_is_shown(bad):
    huge(bad.log_file)
    assert log_tail(bad).strip("\0") == ""
    with bad.log_file.open("ab") as file:
        file.write(b"\nthe last words\n")
    assert log_tail(bad).endswith("the last words")


def test_a_log_that_goes_wrong_while_it_is_read_is_told_to_who_asks_next(good, bad, monkeypatch):
    from app.live import monitor

    monkeypatch.setattr(monitor, "AT_ONCE", 0)
    watches = Watches()
    with monitor._READS_LONG:
        assert watches(bad).behind
        bad.events_file.unlink()
        huge(bad.events_file)
    with pytest.raises(FileTooLarge):
        watches.whole(bad)
    assert watches.whole(good).step == 1


def test_a_long_log_is_read_in_the_background_while_others_are_answered(home, good, bad, monkeypatch):
    from app.live import monitor

    watches = Watches()
    feed = Feed(home, watches)
    assert watches(good).step == 1
    monkeypatch.setattr(monitor, "AT_ONCE", 0)
    with monitor._READS_LONG:  # as if another long one were being read
        assert (watches(bad).status, watches(bad).step) == ("reading", 0)
        assert b"Reading its log" in feed.answer(bad.path.name, "", "en")
        assert "run-reading" in Runs(home, watches).show(9, None, SimpleNamespace(headers={}))[1]
        assert watches(good).status == "completed"
        assert b"Completed" in feed.answer(good.path.name, "", "en")
    assert (watches.whole(bad).status, watches(bad).step) == ("completed", 1)
    assert b"Completed" in feed.answer(bad.path.name, "", "en")


def test_a_run_of_an_earlier_version_is_summarized_once(bad, monkeypatch):
    from app.live import monitor
    from trainer.contract import events

    monkeypatch.setattr(monitor, "AT_ONCE", 0)
    monkeypatch.setattr(events, "SUMMARIZED", 1)
    summary.place(bad.events_file).unlink(missing_ok=True)
    assert Watches().whole(bad).step == 1
    assert summary.kept(bad.events_file)
    monkeypatch.setattr(events, "parsed", lambda lines: pytest.fail("read again") if lines else ([], 0))
    again = Watches()(bad)
    assert (again.behind, again.step, again.status) == (False, 1, "completed")


@pytest.mark.parametrize("name", ["events.jsonl", "config.toml"])
def test_a_run_whose_file_is_a_folder_is_one_bad_card(home, bad, name):
    (bad.path / name).unlink()
    (bad.path / name).mkdir()
    assert [("run-damaged" in one) for one in cards(home)] == [True, False]
    with pytest.raises((TrainerError, OSError)):
        bad.config() if name == "config.toml" else bad.view()
