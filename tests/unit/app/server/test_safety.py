import asyncio
from importlib.metadata import distribution

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse

from app.server.access import logged_in
from app.server.safety import Guard, Hosts, middleware
from trainer.contract.errors import InvalidSettings

PAGE = "http://127.0.0.1:7860"
OWN = {"origin": PAGE}
LINK = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


async def stream(_request):
    async def lines():
        for number in range(3):
            yield f"data: {number}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")


async def echo(websocket):
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())
    await websocket.close()


def server(*allowed_hosts):
    framed = {"content-security-policy": "default-src 'none'", "x-frame-options": "DENY"}
    routes = [
        Route("/", PlainTextResponse("the page")),
        Route("/strict", PlainTextResponse("framed", headers=framed)),
        Route("/stream", stream),
        WebSocketRoute("/socket", echo),
    ]
    return Starlette(routes=routes, middleware=middleware(allowed_hosts))


def client(*allowed_hosts, page=PAGE):
    return TestClient(server(*allowed_hosts), base_url=page)


def status(headers, method="GET", allowed_hosts=(), page=PAGE):
    return client(*allowed_hosts, page=page).request(method, "/", headers=headers).status_code


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "LocalHost:7860", "[::1]:7860", "[0:0::1]:7860"])
def test_this_computers_own_names_are_answered(host):
    assert status({"host": host}) == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_gradios_check_of_its_own_address_passes(method):
    # httpx.get(".../startup-events") and httpx.head("http://localhost:port/"): no Origin, no Sec-Fetch
    assert status({"host": "localhost:7860", "user-agent": "python-httpx/0.28.1"}, method) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:7860",
        "127.0.0.1.evil.example:7860",
        "localhost.evil.example:7860",
        "evil-localhost:7860",
        "localhost.:7860",
        "127.0.0.1",  # port 80
        "127.0.0.1:7861",
        "127.0.0.1:78600",
        "127.0.0.1:",
        "127.0.0.1:7860:7860",
        "127.0.0.1:7860@evil.example",
        "evil.example@127.0.0.1:7860",
        "127.0.0.1:7860/evil.example",
        "127.0.0.1:7860, evil.example",
        "127.0.0.1:7860\n",
        " 127.0.0.1:7860 evil",
        "127.0.0.2:7860",
        "127.1:7860",
        "2130706433:7860",
        "0.0.0.0:7860",
        "192.168.1.20:7860",
        "::1:7860",
        "[::1",
        "[::1]7860",
        "[::2]:7860",
        "[:::1]:7860",
        "[::ffff:127.0.0.1]:7860",
        "*:7860",
        "",
    ],
)
def test_a_foreign_or_broken_name_gets_400(host):
    assert answered([(b"host", host.encode())])["status"] == 400


@pytest.mark.parametrize("hosts", [[], ["127.0.0.1:7860", "evil.example"], ["evil.example", "127.0.0.1:7860"]])
def test_no_name_or_two_get_400(hosts):
    assert answered([(b"host", host.encode()) for host in hosts])["status"] == 400


def answered(headers, **scope):
    """The first message that a request of exactly these headers is answered with."""
    scope = {"type": "http", "method": "GET", "scheme": "http", "server": ("127.0.0.1", 7860), "path": "/", **scope}
    messages = []

    async def send(message):
        messages.append(message)

    async def receive():
        return {"type": "http.request"}

    async def go():
        await Guard(PlainTextResponse("the page"), Hosts.of([]))({**scope, "headers": headers}, receive, send)

    asyncio.run(go())
    return messages[0]


@pytest.mark.parametrize(
    ("listened", "host", "page"),
    [
        ("192.168.1.20", "192.168.1.20:7860", PAGE),
        ("Studio.local", "studio.local:7860", PAGE),
        ("fe80::1", "[fe80::1]:7860", PAGE),
        ("[fe80::1]", "[fe80:0::1]:7860", PAGE),
        ("localhost:8000", "localhost:8000", PAGE),  # ssh -L 8000:localhost:7860
        ("[::1]:8000", "[::1]:8000", PAGE),
        ("studio.local", "studio.local", "http://127.0.0.1:80"),
        ("studio.local", "studio.local", "https://127.0.0.1:443"),
        ("atelier.example:443", "atelier.example", "https://127.0.0.1:7860"),  # behind a server that does TLS
    ],
)
def test_a_name_that_was_listened_on_is_answered_too(listened, host, page):
    assert status({"host": host}, allowed_hosts=[listened], page=page) == 200
    assert status({"host": host}, page=page) == 400


@pytest.mark.parametrize("host", ["studio.local:8000", "studio.local", "other.local:7860"])
def test_a_name_that_was_listened_on_opens_no_other(host):
    assert status({"host": host}, allowed_hosts=["studio.local"]) == 400


@pytest.mark.parametrize("everything", ["0.0.0.0", "::", "[::]"])  # noqa: S104
@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.168.1.20:7860", 200),
        ("[fe80::1]:7860", 200),
        ("studio:7860", 200),
        ("studio.local:7860", 200),
        ("192.168.1.20:7861", 400),
        ("evil.example:7860", 400),
        ("192.168.1.20.evil.example:7860", 400),
        ("[192.168.1.20]:7860", 400),
    ],
)
def test_listening_everywhere_answers_to_numbers_but_not_to_names_somebody_may_own(
    monkeypatch, everything, host, expected
):
    monkeypatch.setattr("socket.gethostname", lambda: "Studio")
    assert status({"host": host}, allowed_hosts=[everything]) == expected


@pytest.mark.parametrize("host", ["http://studio.local", "studio local", "", "[::g]", "stüdio.local", "a,b", "*"])
def test_a_host_that_is_none_is_refused_before_the_start(host):
    with pytest.raises(InvalidSettings) as error:
        middleware([host])
    assert "--listen" in str(error.value)
    assert error.value.hint


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://127.0.0.1:7861",
        "http://127.0.0.1",
        "https://127.0.0.1:7860",
        "http://localhost:7860",  # another name is another origin
        "http://127.0.0.1:7860.evil.example",
        "http://evil.example:7860",
        "http://127.0.0.1:7860/",
        "127.0.0.1:7860",
        "file://",
        "null",
        "",
    ],
)
def test_another_origin_gets_403_whatever_it_asks(method, origin):
    assert status({"origin": origin}, method) == 403


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_the_pages_own_origin_passes(method):
    assert status({**OWN, "sec-fetch-site": "same-origin"}, method) == 200


@pytest.mark.parametrize(
    ("host", "origin"),
    [("localhost:7860", "http://localhost:7860"), ("[::1]:7860", "http://[::1]:7860")],
)
def test_the_origin_is_compared_with_the_name_that_was_asked_for(host, origin):
    assert status({"host": host, "origin": origin}, "POST") == 200
    assert status({"host": host, **OWN}, "POST") == 403


def test_over_tls_the_origin_is_https():
    page = "https://127.0.0.1:443"
    assert status({"host": "localhost", "origin": "https://localhost"}, "POST", page=page) == 200
    assert status({"host": "localhost", "origin": "http://localhost"}, "POST", page=page) == 403


def test_of_two_origins_both_must_be_the_pages():
    headers = [(b"host", b"127.0.0.1:7860"), (b"origin", PAGE.encode()), (b"origin", b"http://evil.example")]
    assert answered(headers)["status"] == 403


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_program_that_is_no_browser_passes(method):
    assert status({"user-agent": "curl/8.5"}, method) == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "unheard-of"])
@pytest.mark.parametrize(
    ("headers", "method", "expected"),
    [
        (LINK, "GET", 200),
        (LINK, "HEAD", 200),
        (LINK, "POST", 403),
        ({**LINK, "sec-fetch-dest": "iframe"}, "GET", 403),
        ({**LINK, "sec-fetch-dest": "object"}, "GET", 403),
        ({"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, "GET", 403),
        ({"sec-fetch-mode": "no-cors", "sec-fetch-dest": "document"}, "GET", 403),
        ({"sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}, "GET", 403),
        ({}, "GET", 403),
        ({}, "POST", 403),
    ],
)
def test_another_site_may_only_link_to_the_page(site, headers, method, expected):
    assert status({"sec-fetch-site": site, **headers}, method) == expected


@pytest.mark.parametrize("site", ["same-origin", "none"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_page_itself_and_the_address_bar_pass(site, method):
    assert status({"sec-fetch-site": site, "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}, method) == 200


@pytest.mark.parametrize(
    ("headers", "seen"),
    [
        ({"host": "evil.example:7860"}, '"evil.example:7860"'),
        ({"origin": "http://evil.example"}, '"http://evil.example"'),
        ({"sec-fetch-site": "cross-site"}, '"cross-site"'),
        ({"host": "<script>" + "x" * 500}, '"<script>xxx'),
    ],
)
def test_a_refusal_says_in_plain_text_what_was_seen_and_what_to_do(headers, seen):
    answer = client().get("/", headers=headers)
    assert seen in answer.text
    assert "open http://" in answer.text.lower()
    assert len(answer.text) < 400
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_socket_of_the_page_is_opened():
    with client().websocket_connect("ws://127.0.0.1:7860/socket", headers=OWN) as socket:
        socket.send_text("hällo")
        assert socket.receive_text() == "hällo"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "ws://127.0.0.1:7860"}, 403),
        ({**OWN, "host": "evil.example:7860"}, 400),
        ({"sec-fetch-site": "cross-site", **LINK}, 403),
    ],
)
def test_a_socket_of_another_site_is_refused(headers, expected):
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        client().websocket_connect("ws://127.0.0.1:7860/socket", headers=headers),
    ):
        pass
    assert refused.value.status_code == expected


def test_a_socket_is_closed_where_the_server_cannot_send_an_answer():
    headers = [(b"host", b"127.0.0.1:7860"), (b"origin", b"http://evil.example")]
    message = answered(headers, type="websocket", scheme="ws")
    assert (message["type"], message["code"]) == ("websocket.close", 1008)


def test_answers_carry_the_safety_headers():
    headers = client().get("/").headers
    assert {name: headers[name] for name in headers if name.startswith(("x-", "referrer", "cross", "content-sec"))} == {
        "x-content-type-options": "nosniff",
        "x-frame-options": "SAMEORIGIN",
        "referrer-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "content-security-policy": "frame-ancestors 'self'",
    }


def test_stricter_headers_of_an_answer_stay():
    headers = client().get("/strict").headers
    assert headers["x-frame-options"] == "DENY"
    assert headers.get_list("content-security-policy") == ["default-src 'none'", "frame-ancestors 'self'"]


def test_a_stream_is_passed_on_piece_by_piece():
    sent = []

    async def send(message):
        sent.append(message)

    async def lines(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
            assert sent[-1]["body"] == b"%d" % number  # it has left before the next is made

    scope = {"type": "http", "method": "GET", "scheme": "http", "server": ("127.0.0.1", 7860)}
    asyncio.run(Guard(lines, Hosts.of([]))({**scope, "headers": [(b"host", b"localhost:7860")]}, None, send))
    assert len(sent) == 4
    assert client().get("/stream").text == "data: 0\n\ndata: 1\n\ndata: 2\n\n"


def test_start_and_end_of_the_server_are_passed_on():
    with client() as running:
        assert running.get("/").text == "the page"


def request_to(app, cookie=""):
    return Request({"type": "http", "app": app, "headers": [(b"cookie", cookie.encode())]})


def test_without_a_login_everybody_is_let_in():
    assert logged_in(request_to(Starlette()))


@pytest.mark.parametrize(
    ("cookie", "expected"),
    [
        ("access-token-id=secret", True),
        ("access-token-unsecure-id=secret", True),
        ("access-token-id=old; access-token-unsecure-id=secret", True),
        ("access-token-id=wrong", False),
        ("access-token-id=", False),
        ("access-token-other=secret", False),
        ("", False),
    ],
)
def test_with_a_login_only_who_has_its_token_is_let_in(cookie, expected):
    app = Starlette()
    app.auth, app.cookie_id, app.tokens = {"ana": "password"}, "id", {"secret": "ana"}
    assert logged_in(request_to(app, cookie)) is expected


def test_gradio_still_keeps_its_login_where_we_look_for_it():
    source = distribution("gradio").locate_file("gradio/routes.py").read_text(encoding="utf-8")
    for expected in (
        "app.auth is None",
        'request.cookies.get(\n                f"access-token-{app.cookie_id}"',
        'request.cookies.get(f"access-token-unsecure-{app.cookie_id}")',
        "app.tokens.get(token)",
        "app.tokens[token] = username",
    ):
        assert expected in source


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (PAGE, "a=b; Path=/; HttpOnly; SameSite=Lax"),
        ("https://127.0.0.1:443", "a=b; Path=/; HttpOnly; SameSite=Lax; Secure"),
    ],
)
def test_cookies_are_kept_from_scripts_other_sites_and_over_tls_from_open_lines(page, expected):
    async def answer(_request):
        return PlainTextResponse("x", headers={"set-cookie": "a=b; Path=/; samesite=none; Secure"})

    app = Starlette(routes=[Route("/", answer)], middleware=middleware())
    assert TestClient(app, base_url=page).get("/").headers["set-cookie"] == expected


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_a_form_of_another_site_needs_no_permission_of_the_browser_and_is_refused(kind):
    headers = {"content-type": kind, "origin": "http://evil.example", "sec-fetch-site": "cross-site", **LINK}
    assert status(headers, "POST") == 403


@pytest.mark.parametrize(
    ("allowed", "host"),
    [
        ("localhost:9000", "localhost:9000"),  # ssh -L 9000:localhost:7860
        ("127.0.0.1:9000", "127.0.0.1:9000"),
        ("studio.tail1234.ts.net", "Studio.tail1234.ts.net:7860"),  # MagicDNS
        ("studio.example", "studio.example"),  # a proxy
        ("studio.example", "studio.example:443"),
        ("https://studio.example/", "studio.example:443"),
        ("abc-7860.pod.example:8443", "abc-7860.pod.example:8443"),  # a rented machine
        ("fe80::1", "[fe80::1]:7860"),
    ],
)
def test_a_name_that_is_allowed_is_answered_and_no_other(allowed, host):
    def asked(name, *names):
        app = Starlette(routes=[Route("/", PlainTextResponse("the page"))], middleware=middleware([], names))
        return TestClient(app, base_url=PAGE).get("/", headers={"host": name}).status_code

    assert asked(host, allowed) == 200
    assert asked(host) == 400
    assert asked(host, "other.example", allowed) == 200
    for foreign in ("evil.example", f"evil.{host}", host.replace(":", ".evil.example:") + ".evil", "192.168.1.20:7860"):
        assert asked(foreign, allowed) == 400


@pytest.mark.parametrize("name", ["*", "", "*.example", "0.0.0.0", "::", "ftp://a.example", "a b", "a.example/page"])  # noqa: S104
def test_what_allows_everything_or_is_no_name_is_refused(name):
    with pytest.raises(InvalidSettings):
        middleware([], [name])


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"origin": "https://studio.example"}, 200),  # the proxy does TLS and does not say so
        ({"origin": "http://studio.example"}, 200),
        ({"origin": "https://studio.example", "sec-fetch-site": "same-origin"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "https://studio.example.evil.example"}, 403),
        ({"origin": "https://studio.example:8443"}, 403),
        ({"origin": "https://studio.example", "sec-fetch-site": "cross-site"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_another_site_is_refused_under_an_allowed_name_too(headers, expected):
    app = Starlette(
        routes=[Route("/", PlainTextResponse("the page"), methods=["POST"])],
        middleware=middleware([], ["studio.example"]),
    )
    answer = TestClient(app, base_url=PAGE).post("/", headers={"host": "studio.example", **headers})
    assert answer.status_code == expected
    assert (
        TestClient(app, base_url=PAGE).post("/", headers={**OWN, "origin": "https://127.0.0.1:7860"}).status_code == 403
    )


@pytest.mark.parametrize("host", ["localhost:9000", "studio.tail1234.ts.net", "studio.example:8443"])
def test_the_refusal_names_the_flag_for_the_name_seen(host):
    assert f"--allow-host {host}" in client().get("/", headers={"host": host}).text
