"""The running server refuses strangers; no browser is needed to see that."""

import os
import subprocess
import sys

import pytest
from site_at_work import CHECKOUT, Site


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
