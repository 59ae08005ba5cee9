import re
import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress

import h11
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from app.server import connection

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems have one loopback address")


async def length(request: Request):
    return PlainTextResponse(str(len(await request.body())))


@contextmanager
def server():
    """A server of uvicorn's in a thread; gives its port."""
    connection.use()
    app = Starlette(routes=[Route("/", length, methods=["GET", "POST"])])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        running = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        thread = threading.Thread(target=running.run, args=([listening],))
        thread.start()
        while not running.started:
            time.sleep(0.01)
        try:
            yield listening.getsockname()[1]
        finally:
            running.should_exit = True
            thread.join()


def answer_to(line, data):
    """One answer on a connection that stays open."""
    line.sendall(data)
    answer = b""
    while not re.search(rb"content-length: 1\r\n.*\r\n\r\n.", answer, re.DOTALL):
        answer += line.recv(1)
    return answer


def said(port, data, source="127.0.0.1"):
    """All that is answered until the connection ends; empty if it was cut off."""
    with socket.create_connection(("127.0.0.1", port), 30, (source, 0)) as line:
        answer = b""
        with suppress(ConnectionError):
            line.sendall(data)
            while more := line.recv(65536):
                answer += more
        return answer


@pytest.mark.parametrize("begun", [b"", b"GET", GET, GET + b"A: b"])
def test_who_does_not_finish_a_question_is_hung_up_on(monkeypatch, begun):
    monkeypatch.setattr(connection, "QUESTION_SECONDS", 0.1)
    with server() as port:
        assert said(port, begun) == b""


def test_who_begins_another_question_must_finish_it_too(monkeypatch):
    monkeypatch.setattr(connection, "QUESTION_SECONDS", 0.1)
    with server() as port, socket.create_connection(("127.0.0.1", port), 30) as line:
        for _ in range(2):  # the same connection serves more than one question
            assert b"200 OK" in answer_to(line, GET + b"\r\n")
        line.sendall(GET)
        with suppress(ConnectionResetError):
            assert line.recv(65536) == b""


def test_an_answer_may_take_longer_than_a_question(monkeypatch):
    monkeypatch.setattr(connection, "QUESTION_SECONDS", 0.1)
    with server() as port, socket.create_connection(("127.0.0.1", port), 30) as line:
        line.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na")
        time.sleep(0.4)
        assert answer_to(line, b"b").endswith(b"2")


def test_what_arrives_at_once_is_parsed_in_small_pieces(monkeypatch):
    taken, receive = [], h11.Connection.receive_data

    def noted(self, data):
        taken.append(len(data))
        receive(self, data)

    monkeypatch.setattr(h11.Connection, "receive_data", noted)
    chunks = 200_000
    body = b"1\r\nx\r\n" * chunks + b"0\r\n\r\n"
    with server() as port:
        answer = said(
            port, b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + body
        )
    assert answer.endswith(str(chunks).encode())
    assert max(taken) <= 16 << 10
    assert sum(taken) >= len(body)


def test_questions_sent_at_once_are_all_answered():
    with server() as port:
        answer = said(port, (GET + b"\r\n") * 2000 + GET + b"Connection: close\r\n\r\n")
    assert answer.count(b"200 OK") == 2001


@only_linux
def test_a_client_elsewhere_has_so_many_connections_and_gets_them_back(monkeypatch):
    monkeypatch.setattr(connection, "OPEN_AT_ONCE", 3)
    whole, mine = GET + b"Connection: close\r\n\r\n", ("127.0.0.9", 0)
    with server() as port:
        for _ in range(2):
            held = [socket.create_connection(("127.0.0.1", port), 30, mine) for _ in range(3)]
            time.sleep(0.2)
            assert said(port, whole, "127.0.0.9") == b""
            assert b"200 OK" in said(port, whole, "127.0.0.10")
            assert b"200 OK" in said(port, whole)
            for line in held:
                line.close()
            time.sleep(0.2)
            assert b"200 OK" in said(port, whole, "127.0.0.9")
