import asyncio

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from app.server import limits
from app.server.limits import ADDRESSES, BODY_BYTES, Allowance, Limiter, client_of
from app.server.safety import login

TABS = 20


class Clock:
    """A clock that goes on when it is told to."""

    now = 0.0

    def __call__(self):
        return self.now


async def length(request: Request):
    return PlainTextResponse(str(len(await request.body())))


def app(**allowances):
    routes = [Route(path, length, methods=["GET", "POST"]) for path in ("/", "/login", "/gradio_api/upload")]
    return Limiter(Starlette(routes=routes), **allowances)


def test_so_many_are_granted_at_once_and_so_many_a_second_then():
    clock = Clock()
    allowance = Allowance(burst=5, a_second=2, clock=clock)
    assert [allowance.grants("a") for _ in range(7)] == [True] * 5 + [False] * 2
    clock.now = 1.0
    assert [allowance.grants("a") for _ in range(3)] == [True, True, False]
    clock.now = 1000.0
    assert sum(allowance.grants("a") for _ in range(99)) == 5


def test_each_client_has_its_own_and_few_are_remembered():
    allowance = Allowance(burst=1, a_second=0)
    assert [allowance.grants(name) for name in ("a", "b", "a")] == [True, True, False]
    for number in range(2 * ADDRESSES):
        allowance.grants(str(number))
    assert len(allowance.buckets) == ADDRESSES


def test_twenty_tabs_of_our_own_page_are_never_limited():
    clock, limiter = Clock(), Limiter(PlainTextResponse())
    limiter.requests.clock = clock
    asked = [limiter.requests.grants("127.0.0.1") for _ in range(TABS * 100)]  # opened at once: scripts and styles
    for _ in range(60):
        clock.now += 1
        asked += [limiter.requests.grants("127.0.0.1") for _ in range(TABS * 2)]  # a poll and a timer each second
    asked += [limiter.requests.grants("127.0.0.1") for _ in range(1500)]  # thumbnails of a folder scrolled through
    assert all(asked)


def test_a_flood_is_answered_429_with_when_to_come_back():
    client = TestClient(app(requests=Allowance(burst=3, a_second=0)))
    answers = [client.get("/") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[-1].headers["retry-after"]
    assert "requests a second" in answers[-1].text


def test_passwords_can_be_tried_a_few_times_a_minute():
    client = TestClient(app(logins=Allowance(burst=2, a_second=0)))
    assert [client.post(path).status_code for path in ["/login"] * 3] == [200, 200, 429]
    assert client.get("/").status_code == 200


def test_who_says_to_speak_for_others_has_no_more_than_one_client():
    client = TestClient(app(requests=Allowance(burst=3, a_second=0)))
    answers = [client.get("/", headers={"x-forwarded-for": f"10.0.0.{n}"}).status_code for n in range(5)]
    assert answers == [200, 200, 200, 429, 429]


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("2001:db8:1:2:3::4", "2001:0db8:0001:0002"),
        ("2001:db8:1:2:ffff::9", "2001:0db8:0001:0002"),
        ("testclient", ""),
    ],
)
def test_a_client_is_its_address_or_its_network(address, name):
    assert client_of({"client": (address, 1), "headers": []}) == name


@pytest.mark.parametrize("claim", [str(BODY_BYTES + 1), "9" * 400, "-1", "x"])
def test_more_than_is_allowed_is_refused_by_its_announcement(claim):
    answer = TestClient(app()).post("/", content=b"x", headers={"content-length": claim})
    assert (answer.status_code, "16 MiB" in answer.text) == (413, True)


def test_what_is_sent_without_an_announcement_is_counted(monkeypatch):
    monkeypatch.setattr(limits, "BODY_BYTES", 1000)
    client = TestClient(app())
    assert client.post("/", content=iter([b"x" * 400] * 2)).text == "800"
    assert client.post("/", content=iter([b"x" * 400] * 3)).status_code == 413
    assert client.post("/gradio_api/upload", content=iter([b"x" * 400] * 3)).text == "1200"


def test_who_sends_too_slowly_is_told_so(monkeypatch):
    monkeypatch.setattr(limits, "PATIENCE_SECONDS", 0.05)
    sent = []

    async def receive():
        if not receive.begun:
            receive.begun = True
            return {"type": "http.request", "body": b"x", "more_body": True}
        return await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    receive.begun = False
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b"", "client": ("::1", 1)}
    asyncio.run(app()(scope, receive, send))
    assert sent[0]["status"] == 408


def test_who_waits_for_an_answer_may_wait_long(monkeypatch):
    monkeypatch.setattr(limits, "PATIENCE_SECONDS", 0.01)

    async def slow(request):
        await request.body()
        await asyncio.sleep(0.1)
        return PlainTextResponse(str(await request.is_disconnected()))

    assert TestClient(Limiter(Starlette(routes=[Route("/", slow)]))).get("/").text == "False"


@pytest.mark.parametrize(
    ("name", "password", "right"),
    [
        ("atelier", "geheim-ä-123", True),
        ("atelier", "geheim-ä-124", False),
        ("atelier", "", False),
        ("Atelier", "geheim-ä-123", False),
        ("\ud800", "\ud800", False),
    ],
)
def test_name_and_password_must_both_be_right(name, password, right):
    assert login("atelier", "geheim-ä-123")(name, password) is right


def test_both_are_compared_in_constant_time_whatever_comes_of_the_first(monkeypatch):
    compared = []
    monkeypatch.setattr("hmac.compare_digest", lambda one, other: compared.append((one, other)) or one == other)
    for name, password in (("wrong", "wrong"), ("atelier", "wrong"), ("wrong", "password")):
        login("atelier", "password")(name, password)
    assert len(compared) == 6
