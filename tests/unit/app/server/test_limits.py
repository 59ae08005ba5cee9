import asyncio

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from app.server import limits
from app.server.limits import (
    ADDRESS_BYTES,
    ADDRESSES,
    BODY_BYTES,
    HEADER_BYTES,
    JSON_VALUES,
    STRANGER_BYTES,
    Allowance,
    Limiter,
    client_of,
)
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


def with_login():
    """A page with a password, and the addresses it was asked for; who has the cookie `me` is logged in."""
    asked = []

    async def seen(request: Request):
        asked.append(request.url.path)
        return PlainTextResponse(str(len(await request.body())))

    methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"]
    page = Starlette(
        routes=[Route("/{path:path}", seen, methods=methods), WebSocketRoute("/socket", taken)],
        middleware=[Middleware(Limiter)],
    )
    page.auth, page.cookie_id, page.tokens = {"ana": "password"}, "id", {"me": "ana"}
    return page, asked


async def taken(websocket):
    await websocket.accept()
    await websocket.close()


def stranger():
    page, asked = with_login()
    return TestClient(page, follow_redirects=False), asked


def member():
    page, asked = with_login()
    return TestClient(page, cookies={"access-token-id": "me"}), asked


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


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE"])
@pytest.mark.parametrize(
    "path", ["/gradio_api/run/x", "/gradio_api/cancel", "/gradio_api/reset", "/", "/loginx", "/x/login"]
)
def test_who_is_not_logged_in_is_turned_away_before_anything_is_read(method, path):
    client, asked = stranger()

    def never():
        raise AssertionError("the body was asked for")
        yield b""

    scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b"", "app": client.app}
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(Limiter(client.app)({**scope, "client": ("::1", 1)}, lambda: next(never()), send))
    assert (sent[0]["status"], asked) == (401, [])


@pytest.mark.parametrize("path", ["/", "/config", "/assets/a.js", "/gradio_api/startup-events"])
def test_who_is_not_logged_in_sees_the_login_page(path):
    client, asked = stranger()
    assert (client.get(path).status_code, asked) == (200, [path])


def test_who_is_not_logged_in_holds_no_connection_open():
    client, asked = stranger()
    assert client.get("/gradio_api/heartbeat/a").status_code == 401
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/socket"):
        pass
    assert asked == []
    with member()[0].websocket_connect("/socket"):
        pass


@pytest.mark.parametrize("path", ["/login", "/login/"])
def test_a_name_and_a_password_may_be_sent_and_no_more(path):
    client, asked = stranger()
    assert client.post(path, content=b"x" * STRANGER_BYTES).text == str(STRANGER_BYTES)
    assert client.post(path, content=b"x" * (STRANGER_BYTES + 1)).status_code == 413
    chunks = iter([b"x" * 100] * 50)
    assert client.post(path, content=chunks).status_code == 413
    assert "4 KiB" in client.post(path, content=b"x" * 10**6).text
    assert len(asked) == 1


def test_a_body_of_who_is_not_logged_in_is_counted_also_where_none_is_expected():
    client, asked = stranger()
    assert client.request("GET", "/", content=iter([b"x" * 100] * 50)).status_code == 413
    assert asked == []


def test_a_name_and_a_password_are_waited_for_before_the_page_is_asked(monkeypatch):
    monkeypatch.setattr(limits, "PATIENCE_SECONDS", 0.05)
    page, asked = with_login()
    sent, pieces = [], [{"type": "http.request", "body": b"x", "more_body": True}]

    async def receive():
        return pieces.pop() if pieces else await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/login", "headers": [], "query_string": b""}
    asyncio.run(page({**scope, "client": ("::1", 1)}, receive, send))
    assert (sent[0]["status"], asked) == (408, [])


def test_who_sends_a_byte_now_and_then_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(limits, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(limits, "SLOWEST", 1000)
    given, sent = [], []

    async def receive():
        await asyncio.sleep(0.02)
        given.append(b"x")
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b"", "client": ("::1", 1)}
    asyncio.run(asyncio.wait_for(app()(scope, receive, send), 20))
    assert sent[0]["status"] == 408


@pytest.mark.parametrize("opening", [b"[],", b'{"":0},', b"0,"])
def test_a_question_has_only_so_many_values_whoever_asks(opening):
    client, _asked = member()
    assert client.post("/gradio_api/run/x", content=opening * (JSON_VALUES + 1)).status_code == 413
    assert client.post("/gradio_api/run/x", content=iter([opening * 1000] * 1000)).status_code == 413
    assert client.post("/gradio_api/run/x", content=b"[" + b"0," * (JSON_VALUES // 2) + b"0]").status_code == 200


def test_a_large_picture_or_text_may_be_sent_by_who_is_logged_in():
    client, _asked = member()
    assert client.post("/gradio_api/run/x", content=b'["' + b"A" * (15 << 20) + b'"]').status_code == 200
    binary = b",[{:" * (1 << 20)
    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/gradio_api/upload", content=binary * 5, headers=kind).text == str(len(binary) * 5)


@pytest.mark.parametrize(
    ("request_of", "status"),
    [
        ({"url": "/" + "a" * ADDRESS_BYTES}, 414),
        ({"url": "/?" + "a&" * (ADDRESS_BYTES // 2)}, 414),
        ({"url": "/", "headers": {"cookie": "a=b;" * (HEADER_BYTES // 4)}}, 431),
        ({"url": "/", "headers": {"x-much": "x" * HEADER_BYTES}}, 431),
        ({"url": "/", "headers": {"cookie": "a=b;" * 1000}}, 200),
        ({"url": "/?" + "a&" * 1000}, 200),
    ],
)
def test_addresses_and_headers_have_a_length(request_of, status):
    for client, _ in (stranger(), member()):
        client.cookies.clear()
        assert client.get(**request_of).status_code == status


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
