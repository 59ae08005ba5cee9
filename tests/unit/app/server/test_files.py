import io
import logging
import os
import sys
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.server.files import routes, run_url, thumbnail_url
from trainer.contract.home import Home
from trainer.runs.folder import RunFolder

LORA = bytes(range(256)) * 20
TURN_RIGHT = 6  # EXIF: the camera was held upright, so show the image turned by 90° clockwise


def png(size=(8, 8), color="red"):
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def home(tmp_path):
    """A home with one run that has every kind of file, and files beside it."""
    home = Home(tmp_path / "home ä")
    run = home.runs / "bälle-1"
    files = {
        "config.toml": b"secret",
        "events.jsonl": b"secret",
        "log.txt": b"secret",
        "process.json": b"secret",
        "bälle.json": b"secret",
        "control/stop": b"",
        "samples/000200-1.png": png(),
        "samples/.hidden.png": b"secret",
        "samples/notes.txt": b"secret",
        "samples/old/000100-1.png": b"secret",
        "checkpoints/000400/adapter.safetensors": b"secret",
        "checkpoints/000400/picture.png": b"secret",
        "before-after.png": png(color="blue"),
        "bälle.preview.png": png(color="green"),
        "other.png": b"secret",
        ".bälle.safetensors.x.part": b"secret",
        ".hidden.safetensors": b"secret",
        "bälle.safetensors": LORA,
        "ana-000400.safetensors": LORA,
    }
    for name, data in files.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(data)
    (home.runs / ".trash" / "samples").mkdir(parents=True)
    (home.runs / ".trash" / "samples" / "a.png").write_bytes(b"secret")
    (home.root / "queue.json").write_bytes(b"secret")
    (home.root / "outside.png").write_bytes(b"secret")
    (home.root / "outside.safetensors").write_bytes(b"secret")
    return home


@pytest.fixture
def run(home):
    return RunFolder(home.runs / "bälle-1")


@pytest.fixture
def browser(home):
    return TestClient(Starlette(routes=routes(home)))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("samples/000200-1.png", "image/png"),
        ("before-after.png", "image/png"),
        ("bälle.preview.png", "image/png"),
        ("bälle.safetensors", "application/octet-stream"),
        ("ana-000400.safetensors", "application/octet-stream"),
    ],
)
def test_previews_and_lora_files_of_a_run_are_served(browser, run, name, kind):
    answer = browser.get(run_url(run, name))
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    assert answer.content == (run.path / name).read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "config.toml",
        "events.jsonl",
        "log.txt",
        "process.json",
        "bälle.json",
        "control/stop",
        "other.png",
        "samples",
        "samples/",
        "samples/.hidden.png",
        "samples/notes.txt",
        "samples/old/000100-1.png",
        "samples/000200-1.png/",
        "samples/000200-1.PNG",
        "samples/none.png",
        "checkpoints/000400/adapter.safetensors",
        "checkpoints/000400/picture.png",
        ".hidden.safetensors",
        ".bälle.safetensors.x.part",
        "none.safetensors",
    ],
)
def test_nothing_else_of_a_run_is_served(browser, name):
    assert browser.get(f"/atelier/run/{quote('bälle-1')}/{quote(name)}").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "run/b%C3%A4lle-1/samples/%2e%2e/config.toml",
        "run/b%C3%A4lle-1/samples/%2e%2e/%2e%2e/%2e%2e/outside.png",
        "run/b%C3%A4lle-1/samples/..%2f..%2f..%2foutside.png",
        "run/b%C3%A4lle-1/samples/..%2f000200-1.png",
        "run/b%C3%A4lle-1/samples/%2e/000200-1.png",
        "run/b%C3%A4lle-1/samples%2f%2e%2e%2fsamples%2f000200-1.png",
        "run/b%C3%A4lle-1//samples/000200-1.png",
        "run/b%C3%A4lle-1/samples//000200-1.png",
        "run/b%C3%A4lle-1/%2e%2e/%2e%2e/outside.safetensors",
        "run/b%C3%A4lle-1/..%2f..%2foutside.safetensors",
        "run/b%C3%A4lle-1/%252e%252e%252foutside.safetensors",
        "run/b%C3%A4lle-1/..%5c..%5coutside.safetensors",
        "run/b%C3%A4lle-1/samples%5c000200-1.png",
        "run/b%C3%A4lle-1/samples/..%5c000200-1.png",
        "run/b%C3%A4lle-1/samples/000200-1.png%00",
        "run/b%C3%A4lle-1/config.toml%00.safetensors",
        "run/b%C3%A4lle-1/config.toml%0a.safetensors",
        "run/b%C3%A4lle-1/before-after.png::$DATA",
        "run/b%C3%A4lle-1/config.toml:.safetensors",
        "run/b%C3%A4lle-1/C:outside.safetensors",
        "run/b%C3%A4lle-1/C:%5coutside.safetensors",
        "run/b%C3%A4lle-1/%ff.safetensors",
        "run/b%C3%A4lle-1/*.safetensors",
        "run/b%C3%A4lle-1/samples/" + "x" * 300 + ".png",
        "run/%2e%2e/outside.safetensors",
        "run/%2e/b%C3%A4lle-1/before-after.png",
        "run/..%2f/outside.safetensors",
        "run/%2e%2e%2foutside.safetensors",
        "run/../outside.safetensors",
        "run/.trash/samples/a.png",
        "run/C:/outside.safetensors",
        "run/%00/samples/a.png",
        "run/none/samples/000200-1.png",
        "run//samples/000200-1.png",
        "run/",
        "run",
        "thumb/../queue.json",
        "thumb/..%2fqueue.jpg",
        "thumb/none.jpg",
        "thumb/" + "0" * 64 + ".jpg",
        "thumb/" + "0" * 64,
        "thumb/" + "0" * 64 + "%0a.jpg",
        "",
    ],
)
def test_no_spelling_leads_elsewhere(browser, path):
    answer = browser.get(f"/atelier/{path}")
    assert "secret" not in answer.text
    assert answer.status_code == 404


def test_absolute_paths_lead_nowhere(browser, home):
    for name in ("outside.png", "outside.safetensors"):
        absolute = quote(str(home.root / name), safe="")
        for path in (f"run/{quote('bälle-1')}/{absolute}", f"run/{absolute}", f"run/{absolute}/{name}", absolute):
            assert browser.get(f"/atelier/{path}").status_code == 404


@pytest.mark.skipif(sys.platform == "win32", reason="Windows lets only administrators make links")
@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("samples/link.png", "../../../outside.png"),
        ("samples/link.png", "../config.toml"),
        ("samples/link.png", "link.png"),
        ("link.safetensors", "../../outside.safetensors"),
        ("link.safetensors", "checkpoints/000400/adapter.safetensors"),
        ("link.safetensors", "config.toml"),
        ("link.safetensors", "samples"),
        ("link.safetensors", "none"),
    ],
)
def test_a_link_in_a_run_leads_nowhere(browser, run, link, target):
    (run.path / link).symlink_to(target)
    assert browser.get(run_url(run, link)).status_code == 404


@pytest.mark.skipif(sys.platform == "win32", reason="Windows lets only administrators make links")
def test_a_linked_folder_leads_nowhere(browser, home, run):
    (home.root / "elsewhere" / "samples").mkdir(parents=True)
    (home.root / "elsewhere" / "samples" / "a.png").write_bytes(png())
    (home.runs / "linked").symlink_to(home.root / "elsewhere")
    (home.runs / "new").mkdir()
    (home.runs / "new" / "samples").symlink_to(home.root / "elsewhere" / "samples")
    for name in ("linked", "new"):
        assert (home.runs / name / "samples" / "a.png").is_file()
        assert browser.get(f"/atelier/run/{name}/samples/a.png").status_code == 404
    assert browser.get(run_url(run, "before-after.png")).status_code == 200


@pytest.mark.skipif(sys.platform == "win32", reason="Windows lets only administrators make links")
def test_the_home_itself_may_lie_behind_a_link(home, tmp_path):
    (tmp_path / "link").symlink_to(home.root)
    linked = Home(tmp_path / "link")
    url = run_url(RunFolder(linked.runs / "bälle-1"), "before-after.png")
    assert TestClient(Starlette(routes=routes(linked))).get(url).status_code == 200


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such files")
def test_what_is_no_plain_file_is_not_opened(browser, run):
    os.mkfifo(run.path / "pipe.safetensors")
    (run.path / "folder.safetensors").mkdir()
    for name in ("pipe", "folder"):
        assert browser.get(run_url(run, f"{name}.safetensors")).status_code == 404


def test_an_answer_without_a_file_is_a_short_plain_text(browser):
    answer = browser.get("/atelier/run/<b>/samples/x.png")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    first, second, *rest = answer.text.splitlines()
    assert '"/atelier/run/<b>/samples/x.png"' in first
    assert "folder" in second
    assert not rest


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_files_are_only_read(browser, run, method):
    assert browser.request(method, run_url(run, "bälle.safetensors")).status_code == 405
    assert (run.path / "bälle.safetensors").read_bytes() == LORA


def test_a_lora_file_is_downloaded_under_its_own_name(browser, run):
    header = browser.get(run_url(run, "bälle.safetensors")).headers["content-disposition"]
    assert header == "attachment; filename*=utf-8''b%C3%A4lle.safetensors"
    assert "content-disposition" not in browser.get(run_url(run, "before-after.png")).headers


def test_a_part_of_a_lora_file_can_be_asked_for(browser, run):
    answer = browser.get(run_url(run, "bälle.safetensors"), headers={"range": "bytes=100-199"})
    assert (answer.status_code, answer.content) == (206, LORA[100:200])
    assert answer.headers["content-range"] == f"bytes 100-199/{len(LORA)}"


def test_a_head_request_tells_the_size_alone(browser, run):
    answer = browser.head(run_url(run, "bälle.safetensors"))
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", str(len(LORA)))


def test_previews_are_kept_for_good(browser, run):
    assert "immutable" in browser.get(run_url(run, "samples/000200-1.png")).headers["cache-control"]


@pytest.mark.parametrize("name", ["before-after.png", "bälle.preview.png", "bälle.safetensors"])
def test_files_that_may_be_written_anew_are_sent_again_only_when_they_were(browser, run, name):
    first = browser.get(run_url(run, name))
    assert first.headers["cache-control"] == "private, no-cache"
    same = {"if-none-match": f'"x", W/{first.headers["etag"]}'}
    again = browser.get(run_url(run, name), headers=same)
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    (run.path / name).write_bytes(b"new content")
    assert browser.get(run_url(run, name), headers=same).content == b"new content"


def test_a_preview_that_was_drawn_anew_has_a_new_address(run):
    sample = run.path / "samples" / "000200-1.png"
    os.utime(sample, ns=(1, 1))
    before = run_url(run, "samples/000200-1.png")
    os.utime(sample, ns=(2, 2))
    assert run_url(run, "samples/000200-1.png") != before


def test_a_file_that_is_not_there_has_an_address_too(browser, run):
    assert browser.get(run_url(run, "samples/none.png")).status_code == 404


def test_the_routes_work_in_the_kind_of_app_that_gradio_makes(home, run):
    app = FastAPI(routes=routes(home))

    @app.get("/{anything:path}")
    def catch_all():
        return "gradio"

    browser = TestClient(app)
    assert browser.get(run_url(run, "bälle.safetensors")).content == LORA
    assert browser.get("/atelier/none").status_code == 404
    assert browser.get("/other").json() == "gradio"


def test_with_a_login_files_are_for_those_who_are_logged_in(home, run):
    app = Starlette(routes=routes(home))
    app.auth, app.cookie_id, app.tokens = {"ana": "password"}, "id", {"secret": "ana"}
    paths = [run_url(run, "before-after.png"), "/atelier/thumb/unreadable.jpg"]
    for path in [*paths, "/atelier/none"]:
        assert TestClient(app).get(path).status_code == 401
    for path in paths:
        assert TestClient(app, cookies={"access-token-unsecure-id": "secret"}).get(path).status_code == 200


def shown(browser, image):
    """The thumbnail of an image file, as the browser gets it."""
    answer = browser.get(thumbnail_url(image))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    thumbnail = Image.open(io.BytesIO(answer.content))
    assert thumbnail.format == "JPEG"
    return thumbnail


def near(pixel, expected):
    return all(abs(a - b) <= 8 for a, b in zip(pixel, expected, strict=True))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1024, 512), (256, 128)), ((300, 600), (128, 256)), ((256, 256), (256, 256)), ((60, 40), (60, 40))],
)
def test_a_thumbnail_has_256_px_at_the_long_side_and_is_never_enlarged(browser, tmp_path, size, expected):
    Image.new("RGB", size, "red").save(tmp_path / "a ö.jpg")
    assert shown(browser, tmp_path / "a ö.jpg").size == expected


def test_a_thumbnail_is_upright(browser, tmp_path):
    image = Image.new("RGB", (800, 400), "red")
    image.paste("blue", (0, 0, 400, 400))  # its left half is the top when the image is turned clockwise
    exif = Image.Exif()
    exif[0x0112] = TURN_RIGHT
    image.save(tmp_path / "a.jpg", exif=exif)
    thumbnail = shown(browser, tmp_path / "a.jpg")
    assert thumbnail.size == (128, 256)
    assert near(thumbnail.getpixel((64, 32)), (0, 0, 255))
    assert near(thumbnail.getpixel((64, 224)), (255, 0, 0))


def test_a_thumbnail_tells_nothing_of_where_the_image_was_taken(browser, tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    Image.new("RGB", (600, 600)).save(tmp_path / "a.jpg", exif=exif)
    thumbnail = shown(browser, tmp_path / "a.jpg")
    assert not dict(thumbnail.getexif())


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 128), (255, 127, 127)),
        ("LA", (0, 0), (255, 255, 255)),
        ("L", 100, (100, 100, 100)),
        ("1", 1, (255, 255, 255)),
        ("I;16", 100 * 256, (100, 100, 100)),
        ("RGB", (10, 200, 30), (10, 200, 30)),
    ],
)
def test_colors_and_transparency_of_every_kind_of_image(browser, tmp_path, mode, color, expected):
    Image.new(mode, (300, 300), color).save(tmp_path / "a.png")
    assert near(shown(browser, tmp_path / "a.png").convert("RGB").getpixel((100, 100)), expected)


def test_a_palettes_transparent_color_is_white(browser, tmp_path):
    image = Image.new("P", (300, 300), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.save(tmp_path / "a.png", transparency=0)
    assert near(shown(browser, tmp_path / "a.png").getpixel((100, 100)), (255, 255, 255))


def test_a_thumbnail_is_made_when_it_is_first_asked_for_and_only_then(browser, home, tmp_path):
    Image.new("RGB", (300, 300)).save(tmp_path / "a.jpg")
    url = thumbnail_url(tmp_path / "a.jpg")
    assert not (home.root / "thumbnails").exists()
    browser.get(url)
    (file,) = (home.root / "thumbnails").iterdir()
    assert url == f"/atelier/thumb/{file.name}"
    file.write_bytes(b"found again")
    assert thumbnail_url(tmp_path / "a.jpg") == url
    assert browser.get(url).content == b"found again"


def test_a_changed_image_and_one_elsewhere_have_thumbnails_of_their_own(browser, tmp_path):
    urls = set()
    for name, color in (("a.png", "red"), ("a.png", "blue"), ("b.png", "blue")):
        Image.new("RGB", (300, 300), color).save(tmp_path / name)
        os.utime(tmp_path / name, ns=(len(urls), len(urls)))
        urls.add(thumbnail_url(tmp_path / name))
    assert len(urls) == 3
    assert near(shown(browser, tmp_path / "a.png").getpixel((9, 9)), (0, 0, 255))


def test_the_address_does_not_hang_on_the_present_folder(tmp_path, monkeypatch):
    Image.new("RGB", (300, 300)).save(tmp_path / "a.png")
    absolute = thumbnail_url(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    assert thumbnail_url((tmp_path / "a.png").relative_to(tmp_path)) == absolute


def test_thumbnails_are_kept_for_good(browser, tmp_path):
    Image.new("RGB", (300, 300)).save(tmp_path / "a.png")
    assert "immutable" in browser.get(thumbnail_url(tmp_path / "a.png")).headers["cache-control"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows lets only administrators make links")
def test_a_link_among_the_thumbnails_leads_nowhere(browser, home):
    (home.root / "thumbnails").mkdir()
    (home.root / "thumbnails" / f"{'a' * 64}.jpg").symlink_to(home.root / "outside.png")
    assert browser.get(f"/atelier/thumb/{'a' * 64}.jpg").status_code == 404


@pytest.mark.parametrize("data", [b"", b"no image", png((300, 300))[:60], b"\xff\xd8\xff\xe0" + b"\0" * 50])
def test_an_unreadable_image_has_a_placeholder_and_the_log_says_why(browser, home, tmp_path, caplog, data):
    (tmp_path / "broken ö.png").write_bytes(data)
    with caplog.at_level(logging.WARNING):
        placeholder = shown(browser, tmp_path / "broken ö.png")
    assert placeholder.size == (256, 256)
    assert len(placeholder.getcolors(maxcolors=65536)) > 1  # not an empty square
    assert "broken ö.png" in caplog.text
    assert not (home.root / "thumbnails").exists()


def test_a_drawing_in_disguise_starts_no_other_program(browser, tmp_path, monkeypatch):
    """Pillow would hand PostScript, whatever its name, to Ghostscript."""
    started = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *arguments, **_: started.append(arguments))
    file = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(file, "EPS")
    browser.get(thumbnail_url(file))
    assert not started


def test_an_image_that_is_gone_has_a_placeholder(browser, tmp_path):
    assert thumbnail_url(tmp_path / "none.png") == "/atelier/thumb/unreadable.jpg"
    assert "immutable" not in browser.get("/atelier/thumb/unreadable.jpg").headers["cache-control"]


def test_an_image_that_can_be_read_later_gets_its_thumbnail(browser, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"half copied")
    assert "immutable" not in browser.get(thumbnail_url(path)).headers["cache-control"]
    path.write_bytes(png((300, 300), "blue"))
    assert near(shown(browser, path).getpixel((9, 9)), (0, 0, 255))


def test_where_thumbnails_cannot_be_written_there_is_a_placeholder(browser, home, tmp_path):
    (home.root / "thumbnails").write_bytes(b"a file in the folder's place")
    Image.new("RGB", (300, 300)).save(tmp_path / "a.png")
    assert "immutable" not in browser.get(thumbnail_url(tmp_path / "a.png")).headers["cache-control"]
