"""How much one client may ask of the server: requests, passwords tried, and how much it sends at what pace."""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from app.server.access import LOGIN, logged_in, open_to_all

UPLOAD = "/gradio_api/upload"
STRANGER_BYTES = 4 << 10  # of who is not logged in: a name and a password
BODY_BYTES = 16 << 20  # of a question: a mask takes 6 MB
JSON_VALUES = 200_000  # in a question; of 16 MiB with nothing but lists reading takes 17 s, for all clients
ADDRESS_BYTES = 8 << 10
NAME_BYTES = 255  # of a folder or file in an address: systems have no longer ones, and fail at them
HEADER_BYTES = 8 << 10  # parsing cookies takes time by the square of their length (Python up to 3.11.9)
UPLOAD_BYTES = 4 << 30  # of all files that are dropped at once
FILE_BYTES = 512 << 20  # of one
PATIENCE_SECONDS = 30.0  # for the next piece of what a client began to send
SLOWEST = 1 << 10  # bytes a second, on average over a whole body from then on
ADDRESSES = 1024  # remembered
WAIT = "Wait a moment, then try again."


class Refused(Exception):
    """A request's body is not read any further; says with which status and why."""

    def __init__(self, status: int, message: str, hint: str) -> None:
        super().__init__(message)
        self.answer = PlainTextResponse(f"{message}\n{hint}\n", status, {"retry-after": "5", "connection": "close"})


@dataclass
class Bucket:
    """Tokens of one client: each request takes one, and they come back at a steady rate."""

    tokens: float
    seen: float  # seconds


@dataclass
class Allowance:
    """So many requests at once, and so many a second from then on; each client for itself."""

    burst: float
    a_second: float
    clock: Callable[[], float] = time.monotonic
    buckets: dict[str, Bucket] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def grants(self, client: str) -> bool:
        """Whether this client may ask once more now."""
        with self.lock:
            now = self.clock()
            bucket = self.buckets.pop(client, None) or Bucket(self.burst, now)
            self.buckets[client] = bucket  # the newest stand last
            while len(self.buckets) > ADDRESSES:
                self.buckets.pop(next(iter(self.buckets)))
            bucket.tokens = min(self.burst, bucket.tokens + (now - bucket.seen) * self.a_second)
            bucket.seen = now
            granted = bucket.tokens >= 1
            bucket.tokens -= granted
            return granted


class Limiter:
    """ASGI middleware: answers 429 to who asks too often, 413 to who sends too much, 408 to who sends too slowly.

    Who is not logged in may ask for the login page and log in, and is answered 401 to all else before it is read.
    What it grants is far more than the page itself needs: twenty tabs opened at once ask for some 2,000 things, and
    then for 30 a second.
    """

    def __init__(self, app: ASGIApp, requests: Allowance | None = None, logins: Allowance | None = None) -> None:
        self.app = app
        self.requests = requests or Allowance(burst=4000, a_second=200)
        self.logins = logins or Allowance(burst=10, a_second=0.1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on within its limits."""
        if scope["type"] == "websocket" and (_too_long(scope) or not logged_in(HTTPConnection(scope))):
            await WebSocketClose(1008)(scope, receive, send)  # 1008: against the server's policy
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = Body(scope, receive)
        started = False

        async def sent(message: Message) -> None:
            """What the app answers, unless its request was refused."""
            nonlocal started
            if body.refused is None or started:
                started = True
                await send(message)

        try:
            self._check(scope)
            stranger = _check_stranger(scope, body)
            body.check_claim()
            if stranger:
                await body.gather()
            await self.app(scope, body.receive, sent)
        except Refused as refused:
            body.refused = refused
        if body.refused is not None and not started:
            await body.refused.answer(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        """Take one from the client's allowance.

        Raises:
            Refused: There is none left, or the address and headers alone are too long.
        """
        too_long = _too_long(scope)
        if too_long:
            raise too_long
        client = client_of(scope)
        if not self.requests.grants(client):
            raise Refused(429, f"More than {self.requests.a_second:g} requests a second came from here.", WAIT)
        login = scope["method"] == "POST" and scope["path"].rstrip("/") == LOGIN
        if login and not self.logins.grants(client):
            raise Refused(429, "Too many passwords were tried from here.", "Wait a minute, then try again.")


class Body:
    """What a client sends, up to its limit and without long pauses."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.headers = Headers(scope=scope)
        self.most = UPLOAD_BYTES if scope["path"].rstrip("/") == UPLOAD else BODY_BYTES
        self.refused: Refused | None = None
        self._counted = b"" if self.headers.get("content-type", "").startswith("multipart/") else b"[{,:"
        self._receive, self._taken, self._values, self._whole = receive, 0, 0, False
        self._begun = time.monotonic()
        self._gathered: list[Message] = []

    def check_claim(self) -> None:
        """Compare what the headers announce with the limit.

        Raises:
            Refused: It is more.
        """
        claimed = self.headers.get("content-length", "0")
        if not claimed.isdecimal() or int(claimed[:20]) > self.most:
            raise self._too_much()

    async def gather(self) -> None:
        """Wait for all of it, so that nothing else is done for who never ends.

        Raises:
            Refused: It is too much, or too late.
        """
        pieces = []
        while not self._whole:
            pieces.append(await self.receive())
        self._gathered = pieces

    async def receive(self) -> Message:
        """The next piece; after the last one whatever comes, however late.

        Raises:
            Refused: It is too much, or too late.
        """
        if self._gathered:
            return self._gathered.pop(0)
        if self._whole:
            return await self._receive()
        spent = time.monotonic() - self._begun
        patience = min(PATIENCE_SECONDS, PATIENCE_SECONDS + self._taken / SLOWEST - spent)
        try:
            message = await asyncio.wait_for(self._receive(), patience)
        except TimeoutError:
            self.refused = Refused(408, f"It came too slowly: {self._taken} bytes in {spent:.0f} s.", "Send it again.")
            raise self.refused from None
        piece = message.get("body", b"")
        self._taken += len(piece)
        self._values += sum(map(piece.count, (bytes([mark]) for mark in self._counted)))
        self._whole = message["type"] != "http.request" or not message.get("more_body", False)
        if self._taken > self.most or self._values > JSON_VALUES:
            self.refused = self._too_much()
            raise self.refused
        return message

    def _too_much(self) -> Refused:
        if self._values > JSON_VALUES:
            return Refused(413, f"More than {JSON_VALUES} values were sent at once.", "Ask for less at once.")
        most = f"{self.most >> 20} MiB" if self.most >= 1 << 20 else f"{self.most >> 10} KiB"
        return Refused(413, f"More was sent than the {most} allowed here.", "Send fewer files at once.")


def _check_stranger(scope: Scope, body: Body) -> bool:
    """Returns whether who asks is not logged in, who may ask for little, and send little.

    Raises:
        Refused: It is something else.
    """
    asking = HTTPConnection(scope)
    if logged_in(asking):
        return False
    if not open_to_all(asking):
        raise Refused(401, "You are not logged in.", "Open the page itself and log in there.")
    body.most = STRANGER_BYTES
    return True


def _too_long(scope: Scope) -> Refused | None:
    """The refusal of an address or headers beyond what any browser sends here, or None."""
    if len(scope.get("raw_path") or scope["path"]) + len(scope.get("query_string", b"")) > ADDRESS_BYTES:
        return Refused(414, f"The address is longer than {ADDRESS_BYTES >> 10} KiB.", "Open the page itself.")
    if any(len(name.encode(errors="replace")) > NAME_BYTES for name in scope["path"].split("/")):
        return Refused(414, f"The address holds a name of more than {NAME_BYTES} bytes.", "Open the page itself.")
    if sum(len(name) + len(value) for name, value in scope["headers"]) > HEADER_BYTES:
        return Refused(431, f"The headers are longer than {HEADER_BYTES >> 10} KiB.", "Delete the browser's cookies.")
    return None


def client_of(scope: Scope) -> str:
    """Who asks: the address, or of IPv6 the network, of which a client has every address.

    Whoever says to speak for others shares one allowance with all who do: the address is then what the request says.
    """
    if "x-forwarded-for" in Headers(scope=scope):
        return "forwarded"
    try:
        address = ip_address((scope.get("client") or ("",))[0])
    except ValueError:
        return ""
    return str(address) if address.version == 4 or address.is_loopback else address.exploded[:19]
