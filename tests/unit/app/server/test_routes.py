"""Every address the running page answers, each with what becomes of names that would lead elsewhere."""

import asyncio
import getpass
import re
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from gradio.routes import App
from starlette.routing import BaseRoute, Mount, Route
from starlette.testclient import TestClient

from app import ui
from app.live.feed import Feed
from app.live.monitor import Watches
from app.server.files import routes
from app.server.limits import FILE_BYTES
from app.server.safety import CLOSED, middleware
from trainer.contract.errors import InvalidSettings
from trainer.contract.home import Home
from trainer.contract.settings.config import validated
from trainer.projects.project import Project
from trainer.runs.folder import RunFolder

SECRET = "a secret of this computer"
# Addresses that hold a name, each with what its name leads to. A new one must be put here, with a thought.
NAMED = {
    "/atelier/preset/{name}.toml": "a preset's file, by files._inside",
    "/atelier/project/{name}.toml": "a project's file, by Project.named",
    "/atelier/run/{run}/{name:path}": "a run's previews and LoRA files, by files._inside",
    "/atelier/thumb/{key}.jpg": "a thumbnail by its hash",
    "/atelier/{rest:path}": "nothing",
    "/assets/{path:path}": "Gradio's own files",
    "/static/{path:path}": "Gradio's own files",
    "/svelte/{path:path}": "Gradio's own files",
    "/pwa_icon/{size}": "no icon",
    "/gradio_api/heartbeat/{session_hash}": "a name in memory",
    "/gradio_api/run/{api_name}": "a function by its name",
    "/gradio_api/run/{api_name}/": "a function by its name",
    "/gradio_api/api/{api_name}": "a function by its name",
    "/gradio_api/api/{api_name}/": "a function by its name",
    "/gradio_api/call/{api_name}": "a function by its name",
    "/gradio_api/call/{api_name}/": "a function by its name",
    "/gradio_api/call/v2/{api_name}": "a function by its name",
    "/gradio_api/call/v2/{api_name}/": "a function by its name",
    "/gradio_api/call/{api_name}/{event_id}": "a name in memory",
    "/gradio_api/call/v2/{api_name}/{event_id}": "a name in memory",
}
# Named functions that take a run: all find it by its plain name (RunFolder.named)
OF_A_RUN = {"stop", "pause", "save", "sample", "resume", "move", "status", "queue_move", "queue_remove"}
OF_NO_FILE = {"runs", "queue"}
OF_SETTINGS = {"start"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = Home(tmp_path_factory.mktemp("routes") / "home")
    run = RunFolder.create(home, validated({}))
    run.path.rename(home.runs / "real")
    outside = home.root.parent / "outside"
    for folder in (home.root, outside, outside / "samples", home.runs / "real" / "samples"):
        folder.mkdir(exist_ok=True)
        for name in ("secret.toml", "secret.png", "secret.safetensors", "config.toml", "log.txt"):
            if folder != home.runs / "real":
                (folder / name).write_text(f'intent = "{SECRET}"', encoding="utf-8")
    return home


def page_of(home, **options):
    async def made():
        feed = Feed(home, Watches())
        demo = ui.build(home, feed)
        demo.auth, demo.auth_message = options.get("auth"), None
        demo.max_file_size, demo.has_launched = FILE_BYTES, True
        kwargs = {"middleware": middleware(), "routes": [*feed.routes(), *routes(home)]}
        return App.create_app(demo, app_kwargs=kwargs)

    return asyncio.run(made())


@pytest.fixture(scope="module")
def page(home):
    return page_of(home)


@pytest.fixture
def browser(page):
    return TestClient(page, base_url="http://127.0.0.1:7860", raise_server_exceptions=False)


def paths(routes: list[BaseRoute], before=""):
    for route in routes:
        if isinstance(route, Mount):
            yield from paths(route.routes or [], before + route.path)
        elif isinstance(route, Route):
            yield before + route.path
        else:  # what an included router becomes
            yield from paths(getattr(getattr(route, "original_router", None), "routes", []), before)


def test_every_address_with_a_name_has_its_case(page):
    named = {path for path in paths(page.routes) if "{" in path and not CLOSED.match(path.partition("{")[0])}
    assert named == set(NAMED)


def elsewhere(home):
    """Names that lead out of where they belong."""
    outside = home.root.parent / "outside"
    yield from (str(outside / name) for name in ("secret.png", "secret.toml", "secret.safetensors"))
    for up in ("..", "../..", "../../..", "samples/..", "../../outside", "..\\..\\outside", "....//....//outside"):
        yield from (f"{up}/{name}" for name in ("secret.toml", "secret.png", "config.toml", "secret.safetensors"))
    yield from (
        "",
        ".",
        "..",
        "/",
        "\0",
        "a\0b",
        "~",
        "~root/.bashrc",
        "/etc/passwd",
        "C:\\Windows\\win.ini",
        "x" * 5000,
    )
    yield from (
        "con",
        "nul.png",
        "\\\\evil.example\\share",
        "file:///etc/passwd",
        "http://127.0.0.1:1/x",
        "-rf",
        "ä" * 90,
    )


@pytest.mark.parametrize("path", [path for path in NAMED if "heartbeat" not in path])
def test_no_name_in_an_address_leads_elsewhere(browser, home, path):
    for name in elsewhere(home):
        spellings = {quote(name, safe=""), quote(name), name.replace("/", "%2f"), quote(quote(name, safe=""))}
        for spelt in (one for one in spellings if one.isprintable()):  # no browser sends others
            address = re.sub(r"\{[^}]*\}", lambda _part, spelt=spelt: spelt, path)
            for method in ("GET", "POST"):
                answer = browser.request(method, f"http://127.0.0.1:7860{address}")
                assert SECRET not in answer.text
                assert "root:" not in answer.text
                assert answer.status_code >= 400 or not address.startswith("/atelier") or answer.url.path == "/"


@pytest.mark.parametrize(
    "folder",
    [
        "/assets/",
        "/static/",
        "/svelte/",
        "/atelier/",
        "/atelier/run/",
        "/atelier/run/real/",
        "/atelier/run/real/samples/",
    ],
)
def test_no_folder_is_listed(browser, folder):
    for path in (folder, folder.rstrip("/")):
        answer = browser.get(path)
        assert answer.status_code in (400, 403, 404)
        assert "secret.png" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=http://127.0.0.1:1/",
        "/gradio_api/file//etc/passwd",
        "/gradio_api/proxy=https://evil.hf.space/",
        "/gradio_api/vibe-code",
        "/gradio_api/custom_component/x/client/y/z",
        "/gradio_api/stream/a/b/1/playlist.m3u8",
        "/gradio_api/dev/reload",
        "/gradio_api/deep_link",
        "/gradio_api/process_recording",
        "/monitoring",
        "/monitoring/summary",
    ],
)
def test_what_gradio_serves_and_we_do_not_use_is_closed(browser, path):
    for method in ("GET", "HEAD", "POST"):
        assert browser.request(method, path).status_code == 404


def test_a_file_that_was_uploaded_is_not_served_again_nor_is_gradios_cache(browser):
    answer = browser.post("/gradio_api/upload", files={"files": ("a.html", b"<script>alert(1)</script>", "text/html")})
    (path,) = answer.json()
    assert Path(path).read_bytes() == b"<script>alert(1)</script>"
    assert browser.get(f"/gradio_api/file={path}").status_code == 404
    Path(path).unlink()


@pytest.mark.parametrize(
    "name", ["../../../x.png", "..\\x.png", "/etc/x.png", "con.txt", "a\0b.png", "ä" * 127 + ".png", "-rf.png", ".."]
)
def test_the_name_of_an_upload_leads_nowhere(browser, name, tmp_path, monkeypatch, page):
    monkeypatch.setattr(page, "uploaded_file_dir", str(tmp_path / "up"))
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="' + name.encode() + b'"\r\n\r\nx\r\n--x--\r\n'
    )
    browser.post("/gradio_api/upload", content=body, headers={"content-type": "multipart/form-data; boundary=x"})
    assert {path.name for path in tmp_path.iterdir()} <= {"up"}


def test_a_file_over_the_limit_is_not_taken(browser, page, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "uploaded_file_dir", str(tmp_path / "up"))
    monkeypatch.setattr(page.get_blocks(), "max_file_size", 1000)
    answer = browser.post("/gradio_api/upload", files={"files": ("a.png", bytes(2000), "image/png")})
    assert answer.status_code == 413
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert FILE_BYTES < 2**30


def test_every_named_function_has_its_case(page):
    named = {one.api_name for one in page.get_blocks().fns.values() if one.api_visibility == "public"}
    assert named == OF_A_RUN | OF_NO_FILE | OF_SETTINGS


@pytest.mark.parametrize("function", sorted(OF_A_RUN))
def test_a_function_finds_runs_by_their_plain_names_alone(browser, home, function):
    for name in (
        str(home.root),
        str(home.runs / "real"),
        "..",
        "../home/runs/real",
        "real/../..",
        "\0",
        "~",
        "x" * 5000,
    ):
        data = [name, *{"queue_move": [0], "move": ["", "", ""]}.get(function, [])]
        answer = browser.post(f"/gradio_api/run/{function}", json={"data": data})
        assert answer.status_code == 500, name
        assert "No run called" in answer.text or "No file can have" in answer.text, name
    assert not (home.root / "control").exists()


@pytest.mark.parametrize("run", ["..", "../..", "/", "~", "\0", "x" * 5000])
def test_the_feed_shows_no_other_folders_log(browser, home, run):
    for name in (run, str(home.root), str(home.root.parent / "outside")):
        answer = browser.get("/atelier/live", params={"run": name})
        assert answer.status_code == 200
        assert SECRET not in answer.text


def test_a_function_takes_no_file_that_was_not_uploaded(browser, page, home):
    taking = [one for one in page.get_blocks().fns.values() if any(hasattr(c, "file_types") for c in one.inputs)]
    assert len(taking) == 3  # the drop zone, a preset and a project to take in
    for one in taking:
        for path in ("/etc/passwd", str(home.root.parent / "outside" / "secret.toml")):
            file = {"path": path, "meta": {"_type": "gradio.FileData"}}
            counts = [getattr(component, "file_count", None) for component in one.inputs]
            data = [{"multiple": [file], None: ""}.get(count, file) for count in counts]
            browser.post("/gradio_api/run/predict", json={"data": data, "fn_index": one._id})
    assert not list(home.root.glob("datasets/*/*"))
    assert not list(home.presets.glob("*"))
    assert not Project.all(home)


def test_with_a_password_nothing_is_told_to_who_has_none(home, capfd):
    password = "correct horse battery"
    app = page_of(home)
    app.auth = ui.login(ui.USER, password)
    browser = TestClient(app, base_url="http://127.0.0.1:7860", raise_server_exceptions=False)
    for path in ("/atelier/live", "/atelier/run/real/x.safetensors", "/gradio_api/info", "/gradio_api/queue/status"):
        assert browser.get(path).status_code == 401, path
    for path in (
        "/gradio_api/upload",
        "/gradio_api/run/runs",
        "/gradio_api/queue/join",
        "/gradio_api/component_server",
    ):
        assert browser.post(path, json={"data": []}).status_code == 401, path
    assert browser.post("/login", data={"username": ui.USER, "password": "wrong"}).status_code == 400
    answer = browser.post("/login", data={"username": ui.USER, "password": password})
    assert answer.status_code == 200
    cookies = answer.headers.get_list("set-cookie")
    assert len(cookies) == 2
    assert all("HttpOnly" in cookie and "SameSite=Lax" in cookie for cookie in cookies)
    assert browser.get("/gradio_api/info").status_code == 200
    assert password not in "".join([*capfd.readouterr(), answer.text, *cookies])


def test_the_password_comes_from_a_file_the_variable_or_the_terminal(tmp_path, monkeypatch):
    file = tmp_path / "password.txt"
    file.write_text("from the file\n", encoding="utf-8")
    monkeypatch.setenv("ATELIER_PASSWORD", "from the variable")
    assert ui.chosen_password("0.0.0.0", file) == "from the file"  # noqa: S104
    assert ui.chosen_password("0.0.0.0", None) == "from the variable"  # noqa: S104
    monkeypatch.delenv("ATELIER_PASSWORD")
    monkeypatch.setattr(ui, "getpass", lambda asked: "typed by me" if "8 characters" in asked else "")
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": staticmethod(lambda: True)}))
    assert ui.chosen_password("0.0.0.0", None) == "typed by me"  # noqa: S104
    assert ui.getpass is not getpass.getpass


@pytest.mark.parametrize(
    ("content", "told"), [(b"", "there is no password"), (b"short", "5 characters"), (b"\xff", "cannot be read")]
)
def test_no_password_or_a_weak_one_is_refused(tmp_path, content, told):
    file = tmp_path / "password.txt"
    file.write_bytes(content)
    with pytest.raises(InvalidSettings, match=told) as refused:
        ui.chosen_password("0.0.0.0", file)  # noqa: S104
    assert "hunte" not in refused.value.message
    with pytest.raises(InvalidSettings, match="cannot be read"):
        ui.chosen_password("0.0.0.0", tmp_path / "none")  # noqa: S104
