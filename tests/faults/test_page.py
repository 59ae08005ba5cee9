"""Floods, slow clients and many tabs: the page answers, and a training neither fails nor comes out otherwise."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlencode

import pytest
import tally
import warm
from safetensors.numpy import load_file
from site_at_work import Site, failure, until

from app.live.feed import PAUSE
from trainer.runs import process

FLOODS, TABS, SLOW = 4, 20, 150
A_SECOND = 200  # requests that the page's server grants a client


def sampled(few: int, many: int) -> pytest.MarkDecorator:
    """So much of it with the ordinary tests, and so much when faults are tried."""
    return pytest.mark.parametrize("much", [few, pytest.param(many, marks=pytest.mark.faults)])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A page of its own, which trains."""
    site = Site(tmp_path_factory.mktemp("page") / "mein Heim für Läufe")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "start", warm.start)
        site.start()
        yield site
        site.clear()
        site.process.terminate()
        site.process.wait()
    assert not site.complaints()


def weights_of(site: Site, name: str) -> dict[str, bytes]:
    """What a finished quick training learnt, by layer."""
    run = site.run(name)
    until(lambda: run.status() not in ("running", "waiting"), f"{name} ends")
    assert run.status() == "completed", failure(run)
    return {layer: tensor.tobytes() for layer, tensor in load_file(run.path / f"{name}.safetensors").items()}


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


@sampled(5, 30)
def test_a_flood_is_limited_and_the_training_comes_out_the_same(site: Site, much: int):
    site.clear()
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
        until(lambda: time.monotonic() - begun > much and statuses[429], "the flood is limited")
    finally:
        ended.set()
        for one in floods:
            one.join()
    until(lambda: site.answers("/") == 200, "the page answers again")
    wrong = [f"answers {dict(statuses)}"] * (not set(statuses) <= {200, 204, 429})
    wrong += ["other weights"] * (flooded != quiet)
    assert not tally.note("page: a flood while it trains", wrong)


@sampled(5, 30)
def test_clients_that_never_finish_their_question_hinder_nobody(site: Site, much: int):
    refill(SLOW + 2 * much)
    beginnings = (
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX-Slow: " % site.port,
        b"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 99999\r\n\r\nx" % site.port,
    )
    with ExitStack() as opened:
        slow = [opened.enter_context(socket.create_connection(("127.0.0.1", site.port))) for _ in range(SLOW)]
        for number, one in enumerate(slow):
            one.sendall(beginnings[number % 2])
        answers = []
        for _ in range(much):
            for one in slow:
                with suppress(OSError):
                    one.sendall(b"x")
            answers += [site.answers("/"), site.answers("/atelier/live")]
    assert not tally.note("page: clients that never finish", [f"answers {answers}"] * (set(answers) != {200}))


def refill(requests: int) -> None:
    """Wait until so many are granted again, whatever a flood before this took: they come back by the clock."""
    time.sleep(requests / A_SECOND)


def tab(site: Site, number: int, looks: int, statuses: Counter) -> None:
    """What one open page asks for in some seconds."""
    with closing(HTTPConnection("127.0.0.1", site.port, timeout=60)) as connection:
        for path in ("/", "/config", "/theme.css"):
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            statuses[answer.status] += 1
        for _ in range(looks):
            connection.request("GET", f"/atelier/live?{urlencode({'page': str(number)})}")
            answer = connection.getresponse()
            answer.read()
            statuses[answer.status] += 1
            time.sleep(int(answer.headers[PAUSE]) / 1000)


@sampled(1, 20)
def test_twenty_tabs_are_all_answered(site: Site, much: int):
    refill(TABS * (3 + much))
    statuses = Counter()
    tabs = [threading.Thread(target=tab, args=(site, number, much, statuses)) for number in range(TABS)]
    for one in tabs:
        one.start()
    for one in tabs:
        one.join()
    wrong = [f"answers {dict(statuses)}"] * (statuses.total() != TABS * (3 + much) or not set(statuses) <= {200, 204})
    assert not tally.note("page: twenty tabs", wrong)
