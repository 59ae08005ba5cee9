"""Who may talk to the server: its own page, and whoever opens it; pages of other sites in the same browser may not.

A browser lets any site send requests to this computer. Three things in a request tell them apart, none of which a
page can forge: `Host` is the name that was asked for (another site's name that now points here is DNS rebinding),
`Origin` is the page that asks, and `Sec-Fetch-*` says how. Gradio checks none of them and, beyond localhost, lets every
Origin read its answers. Programs that are no browsers send none but `Host`, and are let through.
"""

from __future__ import annotations

import hmac
import json
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from app.server.limits import Limiter
from trainer.contract.errors import InvalidSettings
from trainer.contract.wording import action

LOCAL = ("127.0.0.1", "localhost", "[::1]")
PORTS = {"http": 80, "https": 443}  # what a name without a port means
SCHEMES = {"ws": "http", "wss": "https"}  # a page names its origin by these, also when it opens a socket
NAME = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::([0-9]{1,5}))?")
COOKIE_FLAGS = re.compile(rb"; *(?:httponly|secure|samesite=\w+)(?=;|$)", re.IGNORECASE)
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    # Stricter still, "no-referrer" would make the browser send `Origin: null` with the page's own forms
    "referrer-policy": "same-origin",
    # Keeps other sites from showing our images where `Sec-Fetch-*` is not sent: over plain http beyond localhost
    "cross-origin-resource-policy": "same-origin",
}
FRAMES = "frame-ancestors 'self'"
# What Gradio serves and this page does not use: any file of its cache, other servers' answers, its own tools
CLOSED = re.compile(
    r"/(?:gradio_api/)?(?:file[=/]|proxy=|vibe|monitoring|profiling|dev/|custom_component/|process_recording|deep_link"
    r"|stream/|run-history)"
)


def middleware(listened: Iterable[str] = (), allowed: Iterable[str] = ()) -> list[Middleware]:
    """Returns the middleware for `launch(app_kwargs={"middleware": ...})`.

    Args:
        listened: Names and addresses beyond this computer's own that the server has, as given with --listen.
        allowed: Names under which the page is opened by way of a tunnel or proxy, as given with --allow-host;
            `name:port` where the browser sees another port than the server has, or a web server's.

    Raises:
        InvalidSettings: One of them is neither a name nor an address.
    """
    return [Middleware(Guard, Hosts.of(listened, allowed)), Middleware(Limiter)]


@dataclass(frozen=True)
class Hosts:
    """Names the server answers to; one without a port stands for the port the server has."""

    names: frozenset[tuple[str, int | None]]
    any_address: bool
    allowed: frozenset[tuple[str, int | None]] = frozenset()  # by the user: a tunnel's or proxy's

    @classmethod
    def of(cls, listened: Iterable[str], allowed: Iterable[str] = ()) -> Hosts:
        """This computer's names, those `listened` on, and those `allowed` besides.

        The address that stands for all (`0.0.0.0`, `::`) allows every numeric address and the computer's name: what
        rebinding needs is a name that its attacker owns.
        """
        names: set[tuple[str, int | None]] = {(name, None) for name in LOCAL} | {_listened(name) for name in listened}
        any_address = any((address := _address(name)) and address.is_unspecified for name, _ in names)
        if any_address:
            own = socket.gethostname().lower()
            names |= {(own, None), (f"{own}.local", None)}
        besides = frozenset(map(_allowed, allowed))
        # a name without a port is a web server's too: http://name, https://name
        ports = {(name, number) for name, port in besides if port is None for number in PORTS.values()}
        return cls(frozenset(names | besides | ports), any_address, besides | ports)

    def answer_to(self, host: str, port: int, server_port: int | None) -> bool:
        """Whether `host:port` is one of the names."""
        if (host, port) in self.names:
            return True
        known = (host, None) in self.names or (self.any_address and _address(host) is not None)
        return known and port == server_port


class Guard:
    """ASGI middleware: refuses what is not meant for this server or comes from another site; adds safety headers."""

    def __init__(self, app: ASGIApp, hosts: Hosts) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with 400 or 403."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            """Send the message with the headers that keep other sites out."""
            if message["type"] == "http.response.start":
                message.setdefault("headers", [])
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.append("content-security-policy", FRAMES)  # beside another policy: both then hold
                _seal_cookies(message, secure=scope["scheme"] in ("https", "wss"))
            await send(message)

        refused = self._refusal(scope) or _closed(scope)
        if refused is None:
            await self.app(scope, receive, send_safely)
        elif scope["type"] == "websocket" and "websocket.http.response" not in (scope.get("extensions") or {}):
            await WebSocketClose(1008)(scope, receive, send)  # 1008: against the server's policy
        else:
            await refused(scope, receive, send_safely)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        """Returns the refusal of a request, or None if it may pass."""
        headers = Headers(scope=scope)
        asked: str = scope["scheme"]
        scheme = SCHEMES.get(asked, asked)
        server_port = scope["server"][1] if scope.get("server") else None
        host = ", ".join(headers.getlist("host"))  # two of them fit no name
        place = _place(host, scheme)
        if place is None or not self.hosts.answer_to(*place, server_port):
            return refusal(
                400,
                f"This page is not served under the name {_quoted(host)}.",
                f"Open {scheme}://localhost:{server_port} instead, or start Atelier with {_flag_for(host, place)}.",
            )
        origins = headers.getlist("origin")
        # A proxy that does TLS may not say so; the browser does, and the name is one that the user vouches for
        by_proxy = scheme == "http" and (place[0] in {name for name, _ in self.hosts.allowed})
        schemes = (scheme, "https") if by_proxy else (scheme,)
        if any(not any(_same(origin, one, _place(host, one)) for one in schemes) for origin in origins):
            return _foreign(f"Another page, {_quoted(', '.join(origins))},", f"{scheme}://{host}")
        site = headers.get("sec-fetch-site", "none")  # "same-site" is another port of this computer: another program
        if site not in ("same-origin", "none") and not _opens_the_page(scope, headers):
            return _foreign(f"A page of another site (Sec-Fetch-Site: {_quoted(site)})", f"{scheme}://{host}")
        return None


def refusal(status: int, message: str, hint: str) -> PlainTextResponse:
    """Returns a plain text answer: what happened, the value seen, what to do."""
    return PlainTextResponse(f"{message}\n{hint}\n", status)


def login(user: str, password: str) -> Callable[[str, str], bool]:
    """Returns Gradio's check of name and password, which takes the same time whether they are right or wrong."""

    def knows(name: str, tried: str) -> bool:
        """Both are compared whatever comes of the first."""
        right = hmac.compare_digest(tried.encode(errors="replace"), password.encode(errors="replace"))
        return hmac.compare_digest(name.encode(errors="replace"), user.encode()) and right

    return knows


def _closed(scope: Scope) -> PlainTextResponse | None:
    """The answer to who asks for something of Gradio's that is of no use here."""
    path: str = scope.get("path", "")
    if CLOSED.match(path) is None:
        return None
    return refusal(404, f"Nothing is served at {_quoted(path)}.", "Open the page itself.")


def _seal_cookies(message: Message, secure: bool) -> None:
    """Keep cookies from scripts and from other sites' requests, and over TLS from any line without it."""
    flags = b"; HttpOnly; SameSite=Lax" + (b"; Secure" if secure else b"")
    message["headers"] = [
        (name, COOKIE_FLAGS.sub(b"", value) + flags if name.lower() == b"set-cookie" else value)
        for name, value in message["headers"]
    ]


def _foreign(who: str, page: str) -> PlainTextResponse:
    return refusal(
        403, f"{who} tried to use this one.", f"Close that page if you do not know it, and open {page} itself."
    )


def _opens_the_page(scope: Scope, headers: Headers) -> bool:
    """Whether a link or bookmark elsewhere opens an address in a tab of its own: it then sees nothing of the answer."""
    return (
        scope["type"] == "http"
        and scope["method"] in ("GET", "HEAD")
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"  # a frame in another page says "iframe"
    )


def _same(origin: str, scheme: str, place: tuple[str, int] | None) -> bool:
    """Whether an Origin is the very place that was asked; "null" is none."""
    asking, _, host = origin.partition("://")
    return place is not None and asking == scheme and _place(host, scheme) == place


def _place(host: str, scheme: str) -> tuple[str, int] | None:
    """Name and port of a Host header, or None for one that is malformed."""
    split = _split(host)
    if split is None:
        return None
    name, port = split
    return name, PORTS.get(scheme, 0) if port is None else port


def _split(host: str) -> tuple[str, int | None] | None:
    """Name in small letters and port, or None; IPv6 in brackets and in its one short form, as browsers write it."""
    found = NAME.fullmatch(host.lower())
    if found is None:
        return None
    name, port = found[1], int(found[2]) if found[2] else None
    if not name.startswith("["):
        return name, port
    address = _address(name)
    return None if address is None else (f"[{address.compressed}]", port)


def _address(name: str) -> IPv4Address | IPv6Address | None:
    """The name as an address, if it is one; IPv6 stands in brackets."""
    try:
        return IPv6Address(name[1:-1]) if name.startswith("[") else IPv4Address(name)
    except ValueError:
        return None


def _listened(host: str) -> tuple[str, int | None]:
    """One name given with --listen; an IPv6 address may come without its brackets."""
    split = _split(f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host)
    if split is None:
        raise InvalidSettings(
            f"{action('listen', _quoted(host))} is neither a host name nor an address.",
            hint="Give one such as 192.168.1.20 or studio.local, or 0.0.0.0 for all of this computer's addresses.",
        )
    return split


def _allowed(host: str) -> tuple[str, int | None]:
    """One name given with --allow-host, or the address of a page as copied from a browser."""
    scheme, _, rest = host.strip().rpartition("://")
    rest = rest.rstrip("/")
    split = _split(f"[{rest}]" if rest.count(":") > 1 and not rest.startswith("[") else rest)
    address = split and _address(split[0])
    if split is None or scheme.lower() not in ("", *PORTS) or (address and address.is_unspecified):
        raise InvalidSettings(
            f"{action('allow_host', _quoted(host))} is no name that a browser opens.",
            hint="Give one such as studio.example, or localhost:9000 with the port that the browser shows.",
        )
    return split[0], PORTS[scheme.lower()] if scheme and split[1] is None else split[1]


def _flag_for(host: str, place: tuple[str, int] | None) -> str:
    """What lets a page be opened under this name; no name, no flag to copy."""
    return "--allow-host NAME[:PORT]" if place is None else f"--allow-host {host.lower()}"


def _quoted(value: str) -> str:
    """A value from outside, cut and escaped so that it can be shown."""
    return json.dumps(value if len(value) <= 100 else f"{value[:100]}…")
