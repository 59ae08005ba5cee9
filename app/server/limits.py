"""How much one client may ask of the server: requests, passwords tried, and how much it sends at what pace."""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOGIN, UPLOAD = "/login", "/gradio_api/upload"
BODY_BYTES = 16 << 20  # of a question: a mask takes 6 MB
UPLOAD_BYTES = 4 << 30  # of all files that are dropped at once
FILE_BYTES = 512 << 20  # of one
PATIENCE_SECONDS = 30.0  # for the next piece of what a client began to send
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

    What it grants is far more than the page itself needs: twenty tabs opened at once ask for some 2,000 things, and
    then for 30 a second.
    """

    def __init__(self, app: ASGIApp, requests: Allowance | None = None, logins: Allowance | None = None) -> None:
        self.app = app
        self.requests = requests or Allowance(burst=4000, a_second=200)
        self.logins = logins or Allowance(burst=10, a_second=0.1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on within its limits."""
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
            body.check_claim()
            await self.app(scope, body.receive, sent)
        except Refused as refused:
            body.refused = refused
        if body.refused is not None and not started:
            await body.refused.answer(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        """Take one from the client's allowance.

        Raises:
            Refused: There is none left.
        """
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
        self._receive, self._taken, self._whole = receive, 0, False

    def check_claim(self) -> None:
        """Compare what the headers announce with the limit.

        Raises:
            Refused: It is more.
        """
        claimed = self.headers.get("content-length", "0")
        if not claimed.isdecimal() or int(claimed[:20]) > self.most:
            raise self._too_much()

    async def receive(self) -> Message:
        """The next piece; after the last one whatever comes, however late.

        Raises:
            Refused: It is too much, or too late.
        """
        if self._whole:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), PATIENCE_SECONDS)
        except TimeoutError:
            self.refused = Refused(408, f"Nothing more came for {PATIENCE_SECONDS:g} s.", "Send it again.")
            raise self.refused from None
        self._taken += len(message.get("body", b""))
        self._whole = message["type"] != "http.request" or not message.get("more_body", False)
        if self._taken > self.most:
            self.refused = self._too_much()
            raise self.refused
        return message

    def _too_much(self) -> Refused:
        return Refused(413, f"More was sent than the {self.most >> 20} MiB allowed here.", "Send fewer files at once.")


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
