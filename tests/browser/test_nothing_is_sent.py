"""A whole training and an opened page ask no other computer for anything, by whatever library."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from site_at_work import Site, failure, until

from trainer.runs import process

# Python runs a module of this name at every start: the page's, and every trainer's that it starts
GUARD = """
import socket, sys

def watched(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg") and isinstance(arguments[1], tuple):
        asked = arguments[1][0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        asked = arguments[0]
    else:
        return
    if asked not in ("127.0.0.1", "::1", "localhost", "", None, b"localhost"):
        with open({told!r}, "a") as file:
            file.write(f"{{event}} {{asked}}\\n")

with open({told!r}, "a"), open({begun!r}, "a") as begun:
    begun.write(" ".join(sys.argv) + "\\n")
sys.addaudithook(watched)
"""
START = process.start  # as a user's do


@pytest.fixture
def guarded(tmp_path, monkeypatch):
    """A page under the guard, and the files that tell what was asked for and which programs were watched."""
    told, begun, path = tmp_path / "told", tmp_path / "begun", tmp_path / "guard"
    path.mkdir()
    (path / "sitecustomize.py").write_text(GUARD.format(told=str(told), begun=str(begun)), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(path))
    monkeypatch.setattr(process, "start", START)  # one made ready by another test is not watched
    for name in [
        name for name in os.environ if name.startswith(("HF_", "GRADIO_", "DISABLE_TELEMETRY", "DO_NOT_TRACK"))
    ]:
        monkeypatch.delenv(name)  # what a user has not set
    site = Site(tmp_path / "home")
    site.start()
    yield site, told, begun
    site.clear()
    site.process.terminate()
    site.process.wait()


def test_nothing_is_sent_to_anybody(guarded: tuple[Site, Path, Path]):
    site, told, begun = guarded
    for path in ("/", "/dataset", "/runs", "/help", "/config", "/atelier/live"):
        assert site.answers(path) == 200, path
    site.train("quiet")
    run = site.run("quiet")
    until(lambda: run.status() not in ("running", "waiting"), "the run ends")
    assert run.status() == "completed", failure(run)
    assert len(begun.read_text().splitlines()) >= 2  # the page and the trainer were both watched
    assert told.read_text() == ""
    ask = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 9))"
    subprocess.run([sys.executable, "-c", ask], check=False)
    assert "192.0.2.1" in told.read_text()  # the guard sees
