"""Links, pipes and sockets in the program's own folders: refused in a sentence; nothing of somebody else's is lost."""

import sys

import pytest
from strange import IN_A_RUN, KINDS, contents, place, somebodys
from tally import note

from app.live.monitor import Watches
from app.runs.cards import look
from trainer.contract.files import sweep
from trainer.contract.ours import NotOurs
from trainer.dataset.overlay import Entry, change, existing_overlay, overlay_file
from trainer.engine.data.cache import TensorCache
from trainer.runs import process
from trainer.runs.queue import Queue

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and sockets have no names there")
pytestmark = [pytest.mark.faults, pytestmark]
FAULT = "link, pipe or socket in a folder of ours"
KEY = "a" * 64


def attempt(theirs, act):
    """What went wrong while this was tried: it must be refused by name, or do no harm."""
    before = contents(theirs)
    wrong = []
    try:
        act()
    except NotOurs as error:
        if not (error.message and error.hint):
            wrong.append("not told what to do")
    if contents(theirs) != before or (theirs / "not there").exists():
        wrong.append("something of somebody else's was changed")
    return wrong


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", IN_A_RUN)
def test_in_a_run(make_run, tmp_path, name, kind):
    run, theirs = make_run(), somebodys(tmp_path)
    place(run.path / name, kind, theirs)

    def everything():
        for act in (lambda: look(run, Watches()), lambda: run.request("stop"), lambda: Queue(run.home).advance()):
            act()
        process.start(run)
        raise AssertionError("it was started")

    assert not note(FAULT, attempt(theirs, everything))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [".queue.lock", "queue.json"])
def test_in_a_home(make_run, tmp_path, name, kind):
    run, theirs = make_run(), somebodys(tmp_path)
    place(run.home.root / name, kind, theirs)
    assert not note(FAULT, attempt(theirs, lambda: Queue(run.home).start(run)))
    assert run.process() is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["sd15", f"sd15/{KEY}.entry", ".half.1.x.part", f"{'b' * 64}.entry"])
def test_in_the_cache(make_run, tmp_path, name, kind):
    home, theirs = make_run().home, somebodys(tmp_path)
    TensorCache(home.cache / "sdxl").write("c" * 64, {})
    place(home.cache / name, kind, theirs)

    def everything():
        sweep(home.cache)
        TensorCache(home.cache / "sdxl").trim(1e-12)
        TensorCache(home.cache / "sd15").read(KEY)

    assert not note(FAULT, attempt(theirs, everything))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["", ".lock", "metadata.jsonl", "history.jsonl"])
def test_in_a_data_set_s_folder(make_run, images, tmp_path, name, kind):
    home, theirs = make_run().home, somebodys(tmp_path)
    overlay = overlay_file(home, images).parent
    place(overlay / name if name else overlay, kind, theirs)

    def everything():
        existing_overlay(home, images)
        change(home, images, {"image 0.png": Entry(text="a ball")})

    assert not note(FAULT, attempt(theirs, everything))
