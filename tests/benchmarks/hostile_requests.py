"""What one client without the password can do to a page that is open to the network.

`python tests/benchmarks/hostile_requests.py` sends hostile requests to a real server, one kind at a time, and prints
for each the answer, the longest that another, logged-in client waited meanwhile, and by how much the server's memory
grew (Linux).
With `--checkout DIR` it measures another checkout.
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlencode

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import psutil
from site_at_work import Site

PASSWORD = "correct horse battery"  # of a server that lives for this measurement
MIB = 2**20
PATIENCE_SECONDS = 30.0  # for a hostile request's answer
AFTER_SECONDS = 0.5  # for which its effects are watched when it was answered
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
WEBSOCKET = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)
Pieces = Iterable[bytes]


def request(path: str, *headers: str, method: str = "POST", body: Pieces = (), length: int | None = None) -> Pieces:
    """A request as bytes; without a length its body goes in chunks, if it has any."""
    framing = [f"Content-Length: {length}"] if length is not None else ["Transfer-Encoding: chunked"] * bool(body)
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1:{port}", *framing, *headers]
    yield "\r\n".join([*lines, "", ""]).encode("latin-1")
    for piece in body:
        yield piece if length is not None else b"%x\r\n%b\r\n" % (len(piece), piece)
    if body and length is None:
        yield b"0\r\n\r\n"


def typed(kind: str) -> str:
    """The header that names the body's kind."""
    return f"Content-Type: {kind}"


def parts(count: int, name: bytes = b"a") -> bytes:
    """A multipart body of so many empty parts."""
    return (b'--x\r\nContent-Disposition: form-data; name="' + name + b'"\r\n\r\n\r\n') * count + b"--x--\r\n"


def slowly(data: bytes, seconds: float) -> Iterator[bytes]:
    """The data byte by byte, with pauses."""
    for number in range(len(data)):
        time.sleep(seconds)
        yield data[number : number + 1]


def whole(path: str, kind: str, body: bytes) -> Pieces:
    """A request that says truly how long its body is."""
    return request(path, typed(kind), body=[body], length=len(body))


def cases() -> dict[str, Callable[[], Pieces]]:
    """The hostile requests by what they are."""
    lists = b'{"data":[' + b"[]," * 5_000_000 + b"[]]}"
    nested = b'{"data":' + b"[" * 7_000_000
    api, multipart = "/gradio_api", typed("multipart/form-data; boundary=x")
    megabytes = [b"\0" * MIB] * 100
    return {
        "5 million empty lists to a function": lambda: whole(f"{api}/run/runs", JSON, lists),
        "the same in chunks, to the queue": lambda: request(f"{api}/queue/join", typed(JSON), body=[lists]),
        "the same to /cancel": lambda: whole(f"{api}/cancel", JSON, lists),
        "the same to /reset": lambda: whole(f"{api}/reset", JSON, lists),
        "the same under a false length": lambda: request(f"{api}/queue/join", typed(JSON), body=[lists], length=10),
        "7 million lists in one another": lambda: whole(f"{api}/run/runs", JSON, nested),
        "a text of 15 MB": lambda: whole(f"{api}/call/runs", JSON, b'{"data":["' + b"x" * 15_000_000 + b'"]}'),
        "200,000 fields to the login": lambda: whole("/login", FORM, b"a=b&" * 200_000),
        "a password of 15 MB": lambda: whole("/login", FORM, b"username=a&password=" + b"x" * 15_000_000),
        "150,000 parts to the login": lambda: request("/login", multipart, body=[parts(150_000)]),
        "a part's name of 15 MB": lambda: request("/login", multipart, body=[parts(1, b"a" * 15_000_000)]),
        "a gzip bomb to the login": lambda: whole("/login", FORM, gzip.compress(bytes(100 * MIB))),
        "an upload of 100 MiB": lambda: request(f"{api}/upload", multipart, body=megabytes),
        "15 MB of parts to a component": lambda: request(f"{api}/component_server", multipart, body=[parts(250_000)]),
        "4 MB in chunks of one byte": lambda: request(f"{api}/run/runs", typed(JSON), body=[b"["] * 4_000_000),
        "a body with GET": lambda: request("/", method="GET", body=megabytes[:20]),
        "a cookie of 60 kB of escapes": lambda: request("/", 'Cookie: a="' + "\\x" * 30_000 + '"', method="GET"),
        "10,000 cookies": lambda: request("/", "Cookie: " + "a=b;" * 15_000, method="GET"),
        "a query of 20,000 fields": lambda: request(f"/?{'a&' * 30_000}", method="GET"),
        "a path of 60 kB": lambda: request(f"/atelier/{'a/' * 30_000}", method="GET"),
        "a name of 5 kB": lambda: request(f"/static/{'a' * 5000}", method="GET"),
        "a header that never ends": lambda: request("/", "A: " + "x" * 50 * MIB, method="GET"),
        "10,000 ranges of a script": lambda: request(
            "/static/img/logo.svg", "Range: bytes=" + "0-1," * 12_000 + "1-2", method="GET"
        ),
        "a WebSocket": lambda: request("/", *WEBSOCKET, method="GET"),
        "a slow body": lambda: request("/login", typed(FORM), body=slowly(b"a" * 40, 0.5), length=1000),
        "3,000 questions at once": lambda: [b"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n" * 3000],
    }


class Hostile:
    """Somebody without the password."""

    def __init__(self, port: int) -> None:
        self.port, self._known = port, 1

    def _line(self) -> socket.socket:
        """A connection from an address of its own: what others did before counts for nobody else."""
        self._known += 1
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE_SECONDS, (f"127.0.0.{self._known}", 0))

    def send(self, pieces: Pieces) -> str:
        """Send it all, whatever is answered meanwhile; returns the first answer's status, or how it ended."""
        answer = bytearray()
        with self._line() as line:
            sending = threading.Thread(target=self._all, args=(line, pieces), daemon=True)
            sending.start()
            with suppress(OSError):
                while not re.search(rb"\r\n\r\n", answer) and (more := line.recv(65536)):
                    answer += more
        found = re.match(rb"HTTP/1\.1 (\d+)", answer)
        return found[1].decode() if found else "closed"

    def _all(self, line: socket.socket, pieces: Pieces) -> None:
        with suppress(OSError):
            for piece in pieces:
                line.sendall(piece.replace(b"{port}", str(self.port).encode()) if len(piece) < MIB else piece)

    def hold(self, count: int, said: bytes) -> str:
        """Open so many connections that say this and then nothing."""
        lines = [self._line()]
        source = lines[0].getsockname()[0], 0
        with suppress(OSError):
            for _ in range(count):
                lines.append(socket.create_connection(("127.0.0.1", self.port), 2, source))
                lines[-1].sendall(said.replace(b"{port}", str(self.port).encode()))
        time.sleep(2)
        for line in lines:
            line.close()
        return f"{len(lines)} open"


class Other:
    """A logged-in client that asks all the time; remembers how long it waited, and the server's memory."""

    def __init__(self, site: Site, cookie: str) -> None:
        self.site, self.longest, self.most = site, 0.0, 0
        self._server, self._ended, self._cookie = psutil.Process(site.process.pid), threading.Event(), cookie
        self._threads = [threading.Thread(target=work) for work in (self._ask, self._weigh)]

    def __enter__(self) -> Other:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def memory(self) -> int:
        """The server's own memory now, bytes."""
        return self._server.memory_full_info().pss

    def _ask(self) -> None:
        while not self._ended.is_set():
            line, begun = HTTPConnection("127.0.0.1", self.site.port, timeout=60), time.monotonic()
            with suppress(OSError, HTTPException):
                line.request("GET", "/atelier/live?page=other", headers={"Cookie": self._cookie})
                assert line.getresponse().status in (200, 204)
            line.close()
            self.longest = max(self.longest, time.monotonic() - begun)
            self._ended.wait(0.03)

    def _weigh(self) -> None:
        while not self._ended.wait(0.03):
            self.most = max(self.most, self.memory())


def logged_in(port: int) -> str:
    """The cookies of who gave the password."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as line:
        line.request("POST", "/login", urlencode({"username": "atelier", "password": PASSWORD}), {"Content-Type": FORM})
        answer = line.getresponse()
        assert answer.status == 200, answer.status
    return "; ".join(value.partition(";")[0] for name, value in answer.getheaders() if name == "set-cookie")


def measured(site: Site, cookie: str, act: Callable[[], str]) -> tuple[str, float, float]:
    """What was answered, the longest wait of another client in seconds, and the growth of memory in MiB."""
    with Other(site, cookie) as other:
        time.sleep(0.3)
        before, other.longest = other.memory(), 0.0
        answer = act()
        time.sleep(AFTER_SECONDS)
    return answer, other.longest, (max(other.most, before) - before) / MIB


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkout", type=Path, default=Site.checkout, help="Whose server is measured.")
    parser.add_argument("--only", default="", help="Part of the names to measure.")
    flags = parser.parse_args()
    os.environ["ATELIER_PASSWORD"] = PASSWORD
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder), "--listen", "0.0.0.0")  # noqa: S104 - as a person opens it to a network
        site.checkout = flags.checkout
        site.start()
        hostile, cookie = Hostile(site.port), logged_in(site.port)
        waiting = b"POST /login HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 9\r\n\r\na"
        beating = b"GET /gradio_api/heartbeat/a HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
        acts: dict[str, Callable[[], str]] = {"nothing": lambda: "-"}
        acts |= {name: lambda made=made: hostile.send(made()) for name, made in cases().items()}
        acts["500 bodies that stop"] = lambda: hostile.hold(500, waiting)
        acts["500 headers that stop"] = lambda: hostile.hold(500, waiting[:20])
        acts["500 signs of life"] = lambda: hostile.hold(500, beating)
        sys.stdout.write("| request | answer | another waited | memory |\n|---|---|---|---|\n")
        try:
            for name, act in acts.items():
                if flags.only in name:
                    answer, waited, grown = measured(site, cookie, act)
                    sys.stdout.write(f"| {name} | {answer} | {waited:.2f} s | +{grown:.0f} MiB |\n")
                    sys.stdout.flush()
        finally:
            site.kill()


if __name__ == "__main__":
    main()
