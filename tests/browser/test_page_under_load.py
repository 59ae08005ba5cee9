"""Floods, slow clients and many tabs: the page answers, and a training neither fails nor comes out otherwise."""

import os
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlencode

import pytest
from safetensors.numpy import load_file
from site_at_work import Site, failure, until

from app.feed import PAUSE

FLOOD_SECONDS = float(os.environ.get("ATELIER_FLOOD_SECONDS", "5"))  # 30 by hand
FLOODS, TABS, SLOW = 4, 20, 150
PASSWORD = "correct horse battery staple"


def weights_of(site: Site, name: str):
    """What a finished quick training learnt."""
    run = site.run(name)
    until(lambda: run.status() not in ("running", "waiting"), f"{name} ends")
    assert run.status() == "completed", failure(run)
    return load_file(run.path / f"{name}.safetensors")


def flood(site: Site, ended: threading.Event, statuses: Counter) -> None:
    """Ask as fast as it goes until it is over."""
    with closing(HTTPConnection("127.0.0.1", site.port, timeout=60)) as connection:
        while not ended.is_set():
            try:
                connection.request("GET", "/atelier/live?run=flooded")
                answer = connection.getresponse()
                answer.read()
                statuses[answer.status] += 1
            except (OSError, HTTPException):
                statuses["broken"] += 1
                connection.close()


def test_a_flood_is_limited_and_the_training_comes_out_the_same(site: Site):
    site.train("quiet")
    quiet = weights_of(site, "quiet")
    ended, statuses = threading.Event(), Counter()
    floods = [threading.Thread(target=flood, args=(site, ended, statuses)) for _ in range(FLOODS)]
    begun = time.monotonic()
    for one in floods:
        one.start()
    try:
        site.train("flooded")
        flooded = weights_of(site, "flooded")
        until(lambda: time.monotonic() - begun > FLOOD_SECONDS and statuses[429], "the flood is limited")
    finally:
        ended.set()
        for one in floods:
            one.join()
    assert set(statuses) <= {200, 204, 429}, statuses
    assert quiet.keys() == flooded.keys()
    assert all(quiet[name].tobytes() == flooded[name].tobytes() for name in quiet)
    until(lambda: site.answers("/") == 200, "the page answers again")


def test_clients_that_never_finish_their_question_hinder_nobody(site: Site):
    time.sleep(2)  # 400 requests are granted again, whatever a flood before this took
    beginnings = (
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX-Slow: " % site.port,
        b"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 99999\r\n\r\nx" % site.port,
    )
    with ExitStack() as opened:
        slow = [opened.enter_context(socket.create_connection(("127.0.0.1", site.port))) for _ in range(SLOW)]
        for number, one in enumerate(slow):
            one.sendall(beginnings[number % 2])
        for drop in range(5):
            for one in slow:
                with suppress(OSError):
                    one.sendall(b"x")
            assert site.answers("/") == 200, drop
            assert site.answers("/atelier/live") == 200, drop


def tab(site: Site, number: int, statuses: Counter) -> None:
    """What one open page asks for in some seconds."""
    with closing(HTTPConnection("127.0.0.1", site.port, timeout=60)) as connection:
        for path in ("/", "/config", "/theme.css"):
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            statuses[answer.status] += 1
        for _ in range(3):
            connection.request("GET", f"/atelier/live?{urlencode({'page': str(number)})}")
            answer = connection.getresponse()
            answer.read()
            statuses[answer.status] += 1
            time.sleep(int(answer.headers[PAUSE]) / 1000)


def test_twenty_tabs_are_all_answered(site: Site):
    until(lambda: site.answers("/") == 200, "the page answers")
    statuses = Counter()
    tabs = [threading.Thread(target=tab, args=(site, number, statuses)) for number in range(TABS)]
    for one in tabs:
        one.start()
    for one in tabs:
        one.join()
    assert sum(statuses.values()) == TABS * 6
    assert set(statuses) <= {200, 204}


@pytest.fixture
def open_site(tmp_path, monkeypatch):
    """A page that is open to other computers."""
    monkeypatch.setenv("ATELIER_PASSWORD", PASSWORD)
    site = Site(tmp_path / "open", "--listen", "127.0.0.1")
    site.start()
    yield site
    site.process.terminate()
    site.process.wait()


def test_of_an_open_page_nothing_is_told_without_the_password_which_is_written_nowhere(open_site: Site):
    assert open_site.answers("/atelier/live") == 401
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answers = []
    with closing(HTTPConnection("127.0.0.1", open_site.port, timeout=60)) as connection:
        for tried in ("wrong", PASSWORD, *["guess"] * 12):
            connection.request("POST", "/login", urlencode({"username": "atelier", "password": tried}), form)
            answer = connection.getresponse()
            answer.read()
            answers.append(answer.status)
            cookies = answer.headers.get_all("set-cookie") or []
            assert all("HttpOnly" in cookie and "SameSite=Lax" in cookie for cookie in cookies)
    assert answers[:2] == [400, 200]
    assert answers[-1] == 429
    written = [path.read_bytes() for path in open_site.home.root.rglob("*") if path.is_file()]
    assert written
    assert not [data for data in written if PASSWORD.encode() in data]
