"""A client's connection, before there is a request: how many it may open, and how long it may take to ask.

uvicorn limits neither, and parses all that has arrived at once, while every other client waits.
"""

import asyncio
from collections import Counter
from typing import Any

import uvicorn.config
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.server.limits import client_of

QUESTION_SECONDS = 20.0  # for a request's line and headers
PIECE = 8 << 10  # bytes that are parsed in one go; of chunks of one byte it takes some 20 ms
OPEN_AT_ONCE = 256  # connections of one client; twenty tabs have 120. A proxy on this computer speaks for many

_open: Counter[str] = Counter()


def use() -> None:
    """Have every server of this process speak to its clients through `Connection`."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{Connection.__name__}"


class Connection(H11Protocol):
    """uvicorn's connection, which ends when no question comes, and reads what arrives piece by piece."""

    def __init__(self, *given: Any, **named: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*given, **named)
        self._waiting = bytearray()
        self._deadline: asyncio.TimerHandle | None = None
        self._whose = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection; one too many is closed."""
        super().connection_made(transport)
        self._whose = client_of({"client": self.client, "headers": []})
        _open[self._whose] += 1
        if _open[self._whose] > OPEN_AT_ONCE and self._whose not in ("", "127.0.0.1", "::1"):
            transport.abort()
            return
        self._deadline = self.loop.call_later(QUESTION_SECONDS, self._hang_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        _open[self._whose] -= 1
        _open.pop(self._whose, 0) if _open[self._whose] <= 0 else None
        self._waiting.clear()
        self._asked()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse some of what has arrived, and the rest after others had their turn."""
        busy = bool(self._waiting)
        self._waiting += data
        if not busy:
            self._parse()

    def _parse(self) -> None:
        """Parse the next piece."""
        piece = bytes(self._waiting[:PIECE])
        del self._waiting[:PIECE]
        if not piece or self.transport.is_closing():
            self._waiting.clear()
            return
        earlier = self.cycle
        super().data_received(piece)
        if self.cycle is not earlier:
            self._asked()
        elif self._deadline is None and (earlier is None or earlier.response_complete):
            self._deadline = self.loop.call_later(QUESTION_SECONDS, self._hang_up)  # another one has begun
        if self._waiting:
            self.transport.pause_reading()
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Parse on, and read on when all is parsed, unless uvicorn has more than it wants."""
        self._parse()
        if not self._waiting and not self.flow.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def _asked(self) -> None:
        """A question is there: its answer may take its time."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _hang_up(self) -> None:
        """Nothing was asked in time."""
        self._deadline = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
