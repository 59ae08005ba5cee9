"""What the page's flags and variables make of its server."""

from types import SimpleNamespace

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from app import ui

NAMES = ["studio.example", "localhost:9000"]


@pytest.mark.parametrize(
    ("flags", "variable"),
    [([], ""), ([f"--allow-host={name}" for name in NAMES], ""), ([], ", ".join(NAMES))],
)
def test_the_names_of_flag_and_variable_reach_the_guard(home, monkeypatch, flags, variable):
    served = {}
    page = SimpleNamespace(_queue=SimpleNamespace(), launch=lambda **named: served.update(named), block_thread=list)
    monkeypatch.setattr(ui, "build", lambda *_: page)
    monkeypatch.setattr(ui.connection, "use", lambda: None)
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("ATELIER_ALLOW_HOST", variable)
    monkeypatch.delenv("ATELIER_PASSWORD", raising=False)
    assert ui.main(["--no-browser", "--home", str(home.root), *flags]) == 0
    app = Starlette(routes=[Route("/", PlainTextResponse("the page"))], middleware=served["app_kwargs"]["middleware"])
    client = TestClient(app, base_url=f"http://127.0.0.1:{served['server_port']}")
    assert client.get("/").status_code == 200
    for name in NAMES:
        assert client.get("/", headers={"host": name}).status_code == (200 if flags or variable else 400)


def test_a_wrong_flag_is_named_without_commanding_the_terminal(capsys):
    with pytest.raises(SystemExit):
        ui.main(["--no-such-flag\x1b]0;title\x07\x1b[2J"])
    told = capsys.readouterr().err
    assert "\\x1b]0;title" in told
    assert "\x1b" not in told
