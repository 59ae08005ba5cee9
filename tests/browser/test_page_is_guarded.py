"""The running server refuses strangers; no browser is needed to see that."""

import os
import subprocess
import sys
from contextlib import closing
from http.client import HTTPConnection
from urllib.parse import urlencode

import pytest
from site_at_work import CHECKOUT, Site

PASSWORD = "correct horse battery staple"


def test_the_page_is_served_under_its_own_names(site: Site):
    assert site.answers("/") == 200
    assert site.answers("/", Host=f"localhost:{site.port}") == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1:1"])
def test_another_name_is_refused(site: Site, host):
    assert site.answers("/", Host=host) == 400


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}]
)
@pytest.mark.parametrize("path", ["/gradio_api/call/start", "/gradio_api/queue/join", "/gradio_api/upload"])
def test_another_sites_post_is_refused(site: Site, path, headers):
    assert site.answers(path, "POST", **{"Content-Type": "application/json", **headers}) == 403


def test_listening_to_the_network_without_a_password_is_refused():
    environment = {name: value for name, value in os.environ.items() if name != "ATELIER_PASSWORD"}
    command = [sys.executable, "-m", "app.ui", "--no-browser", "--listen", "0.0.0.0"]  # noqa: S104
    said = subprocess.run(
        command, cwd=CHECKOUT, env={**environment, "PYTHONPATH": str(CHECKOUT)}, capture_output=True, encoding="utf-8"
    )
    assert said.returncode == 2
    assert "ATELIER_PASSWORD" in said.stderr
    assert "Traceback" not in said.stderr


@pytest.fixture
def open_site(tmp_path, monkeypatch):
    """A page that is open to other computers."""
    monkeypatch.setenv("ATELIER_PASSWORD", PASSWORD)
    site = Site(tmp_path / "open", "--listen", "127.0.0.1")
    site.start()
    yield site
    site.process.terminate()
    site.process.wait()


def test_of_an_open_page_nothing_is_told_without_the_password_which_is_written_nowhere(open_site: Site):
    assert open_site.answers("/atelier/live") == 401
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answers = []
    with closing(HTTPConnection("127.0.0.1", open_site.port, timeout=60)) as connection:
        for tried in ("wrong", PASSWORD, *["guess"] * 12):
            connection.request("POST", "/login", urlencode({"username": "atelier", "password": tried}), form)
            answer = connection.getresponse()
            answer.read()
            answers.append(answer.status)
            cookies = answer.headers.get_all("set-cookie") or []
            assert all("HttpOnly" in cookie and "SameSite=Lax" in cookie for cookie in cookies)
    assert answers[:2] == [400, 200]
    assert answers[-1] == 429
    written = [path.read_bytes() for path in open_site.home.root.rglob("*") if path.is_file()]
    assert written
    assert not [data for data in written if PASSWORD.encode() in data]
