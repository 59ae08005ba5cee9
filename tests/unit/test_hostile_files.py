"""Files and names made to harm: what they would do does not happen, and what is shown of them is only text."""

import io
import os
import re
import sys

import malformed
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.dataset.folder import ImageFolder
from app.desk.images import images_html
from app.kit.cards import problem_card
from app.live.chart import chart_data
from app.live.feed import parts_of
from app.live.monitor import Watch
from app.live.result import facts
from app.runs.cards import card, look
from app.runs.comparison import comparison
from app.server.files import routes, thumbnail_url
from app.settings.preset_box import own_list
from trainer.captioning.from_metadata import prompt_of
from trainer.contract.errors import InvalidSettings, TrainerError
from trainer.contract.events import EventLog, Lora, Phase, RunFailed, RunStarted, RunView, Sample, Step, Warned
from trainer.contract.files import atomic_write
from trainer.contract.home import Home, user_path
from trainer.contract.presets import save_preset
from trainer.contract.settings.config import validated
from trainer.contract.settings.fields import plain_file_name
from trainer.dataset.images import load_image
from trainer.dataset.overlay import Entry, change, entries_of
from trainer.dataset.scan import scan
from trainer.models.lora_header import check_start
from trainer.projects.sets import keep_dropped
from trainer.runs.errors import RunMissing
from trainer.runs.folder import RunFolder
from trainer.runs.handover import civitai_text
from trainer.runs.sheets import before_after

SCRIPT = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no such names")


def gif_and_script():
    """A sound GIF that a browser, told to, would run: its comment begins one, and its end closes it."""
    buffer = io.BytesIO()
    Image.new("RGB", (42, 8), "red").save(buffer, "GIF", comment=SCRIPT.encode())
    return buffer.getvalue() + b"*/=1;" + SCRIPT.encode()


POLYGLOTS = {
    "gif.gif": gif_and_script(),
    "png.png": malformed.png(8, 8, malformed.zlib.compress(bytes(8 * 25))) + SCRIPT.encode(),
    "svg.png": f'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)">{SCRIPT}</svg>'.encode(),
    "html.jpg": f"<!doctype html>{SCRIPT}".encode(),
    "zip.png": malformed.png(8, 8, malformed.zlib.compress(bytes(8 * 25))) + b"PK\x05\x06" + bytes(18),
}


@pytest.mark.parametrize("name", POLYGLOTS)
def test_of_an_image_that_is_a_program_too_only_its_pixels_reach_the_browser(tmp_path, name):
    image = tmp_path / name
    image.write_bytes(POLYGLOTS[name])
    answer = TestClient(Starlette(routes=routes(Home(tmp_path / "home")))).get(thumbnail_url(image))
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).format == "JPEG"
    assert b"script" not in answer.content
    assert b"PK\x05\x06" not in answer.content


def test_an_image_that_would_start_another_program_is_asked_for_no_prompt(tmp_path):
    drawing = tmp_path / "drawing.png"
    drawing.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with Image.open(drawing) as opened:
        assert opened.format == "EPS"  # Pillow itself would
    with pytest.raises(TrainerError, match="cannot be read"):
        prompt_of(drawing)


def test_a_drawing_among_the_previews_starts_no_program(tmp_path):
    run = RunFolder.create(Home(tmp_path), validated({}))
    run.samples.mkdir()
    samples = [Sample(step=step, index=0, prompt="a", seed=1, file=f"samples/{step}.png") for step in (0, 9)]
    for sample in samples:
        (run.path / sample.file).write_bytes(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage"
        )
    with pytest.raises(OSError, match="cannot identify"):
        before_after(run, RunView(samples=samples))


NAMES = [
    "-rf.png",
    "--help.png",
    "con.png",
    "$(touch x).png",
    "`id`.png",
    "a'b;c&d|e.png",
    "%s%n.png",
    "ä" * 125 + ".png",
]
NAMES += ["\u202egnp.exe.png", "<b>&amp;.png", "new\nline.png", "tab\t.png", "..png", "...png.png", " .png"]


@POSIX
@pytest.mark.parametrize("name", NAMES)
def test_images_of_odd_names_are_scanned_changed_and_shown(tmp_path, name):
    folder, home = tmp_path / "pictures", Home(tmp_path / "home")
    folder.mkdir()
    (folder / name).write_bytes(malformed.png(16, 16, malformed.zlib.compress(bytes(16 * 49))))
    hidden = name.startswith(".")
    if hidden:
        (folder / "other.png").write_bytes((folder / name).read_bytes())
    items, _ = scan(folder)
    assert [item.name for item in items] == (["other.png"] if hidden else [name])
    if not hidden:
        change(home, folder, {name: Entry(text="a bear")})
        assert entries_of(home, folder) == {name: Entry(text="a bear")}
        assert list(ImageFolder.of(home, str(folder)).captions.values()) == ["a bear"]
    assert load_image(items[0].path).size == (16, 16)
    assert "<b>" not in images_html(home, folder, "", "en")
    assert sorted(path.name for path in tmp_path.iterdir()) in (["home", "pictures"], ["pictures"])


@POSIX
@pytest.mark.parametrize("name", ["../../x.png", "/etc/x.png", "a/../../x.png", "..", "a\0b.png", "x" * 300 + ".png"])
def test_no_name_of_a_change_leads_out_of_the_folder(tmp_path, name):
    folder, home = tmp_path / "pictures", Home(tmp_path / "home")
    folder.mkdir()
    for place in (folder / "a.png", tmp_path / "x.png"):
        place.write_bytes(malformed.png(16, 16, malformed.zlib.compress(bytes(16 * 49))))
    with pytest.raises(TrainerError):
        change(home, folder, {name: Entry(text="x")})
    assert entries_of(home, folder) == {}


@pytest.mark.parametrize(
    "name", ["../../x", "con.txt", "CON", "nul.safetensors", "a\0b", "ä" * 128, ".x", "a:b", "a/b", "a\\b"]
)
def test_no_such_name_becomes_a_files_here(name):
    with pytest.raises(ValueError, match=r"must be|device|takes"):
        plain_file_name(name)


@pytest.mark.parametrize(
    "name",
    ["..", ".", "", "/", "~", "~root", "../home/runs/real", "real/", "real/.", "./real", "\0", "\ud800", "x" * 5000],
)
def test_a_run_is_found_by_its_plain_name_and_by_nothing_else(tmp_path, name, monkeypatch):
    home = Home(tmp_path / "home")
    made = RunFolder.create(home, validated({}))
    made.path.rename(home.runs / "real")
    (home.root / "config.toml").write_text("", encoding="utf-8")  # what `..` would come to
    monkeypatch.setenv("HOME", str(home.runs / "real"))  # and what ~ would
    assert RunFolder.named(home, "real").path == home.runs / "real"
    assert RunFolder.find(home, str(home.runs / "real")).path == home.runs / "real"  # the console takes paths too
    for wrong in (name, str(home.runs / "real"), str(home.root)):
        with pytest.raises((RunMissing, InvalidSettings)):
            RunFolder.named(home, wrong)


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "x" * 300, "a/" + "ä" * 200 + "/b"])
def test_a_path_that_no_file_can_have_is_refused_in_words(tmp_path, path):
    with pytest.raises(InvalidSettings, match="No file can have the path"):
        user_path(path)
    with pytest.raises(InvalidSettings, match="No file can have the path"):
        ImageFolder.of(Home(tmp_path), path)


def test_the_home_folder_of_somebody_unknown_is_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(TrainerError, match="does not exist"):
        ImageFolder.of(Home(tmp_path), "~nobody-of-this-name/pictures")


@POSIX
def test_what_is_written_here_goes_through_no_link(tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_bytes(b"mine")
    (tmp_path / "soft").symlink_to(mine)
    (tmp_path / "hard").hardlink_to(mine)
    for name in ("soft", "hard"):
        atomic_write(tmp_path / name, b"ours")
        assert (tmp_path / name).read_bytes() == b"ours"
        assert not (tmp_path / name).is_symlink()
    assert mine.read_bytes() == b"mine"


@POSIX
def test_images_behind_a_link_that_leads_out_are_not_trained(tmp_path):
    folder, outside = tmp_path / "pictures", tmp_path / "outside"
    for place in (folder, outside):
        place.mkdir()
        (place / f"{place.name}.png").write_bytes(malformed.png(16, 16, malformed.zlib.compress(bytes(16 * 49))))
    (folder / "link.png").symlink_to(outside / "outside.png")
    (folder / "up").symlink_to(tmp_path)
    items, problems = scan(folder)
    assert [item.name for item in items] == ["pictures.png"]
    assert "link_outside" in {problem.code for problem in problems}


def test_of_dropped_files_only_images_and_captions_are_kept(tmp_path):
    dropped = []
    for name in ("a.png", "a.txt", "page.html", "drawing.svg", "run.bat", "config.toml", "x.safetensors"):
        (tmp_path / name).write_bytes(b"x")
        dropped.append(tmp_path / name)
    kept = keep_dropped(Home(tmp_path / "home"), dropped)
    assert sorted(path.name for path in kept.iterdir()) == ["a.png", "a.txt"]


@pytest.fixture
def hostile_run(tmp_path):
    """A run whose every text is markup: its settings, its events, and what its LoRA file says of itself."""
    config = {
        "preset": SCRIPT,
        "dataset": {"images": SCRIPT, "trigger_word": SCRIPT[:60]},
        "preview": {"prompts": [SCRIPT]},
        "model": {"base_model": SCRIPT},
    }
    run = RunFolder.create(Home(tmp_path), validated(config))
    tensors = {"lora_unet_x.lora_down.weight": torch.ones(1, 1)}
    save_file(tensors, run.path / "a.safetensors", {"ss_tag_frequency": f'{{"{SCRIPT[:8]}": {{"{SCRIPT[:8]}": 1}}}}'})
    run.samples.mkdir()
    Image.new("RGB", (8, 8)).save(run.samples / "0.png")
    started = {"family": SCRIPT, "base_model": SCRIPT, "device": SCRIPT, "versions": {SCRIPT: SCRIPT}}
    step = {"epoch": 1.0, "loss": 1.0, "lr": 1.0, "grad_norm": 1.0, "seconds": 1.0, "memory_gib": 1.0}
    with EventLog(run.events_file) as log:
        log.write(RunStarted(**started, steps_total=9, resumed_at=0, memory_gib=1.0))
        log.write(Phase(name="train", done=0, total=9))
        for number in range(1, 4):
            log.write(Step(step=number, **step))
        log.write(Warned(code=SCRIPT, message=SCRIPT, hint=SCRIPT))
        for file in ("samples/0.png", SCRIPT):
            log.write(Sample(step=1, index=0, prompt=SCRIPT, seed=1, file=file))
        log.write(Lora(step=1, file="a.safetensors", bytes=1, sha256=SCRIPT))
        log.write(Lora(step=2, file=SCRIPT, bytes=1, sha256=SCRIPT))
        log.write(RunFailed(code=SCRIPT, message=SCRIPT, hint=SCRIPT))
    return run


@pytest.mark.parametrize("tongue", ["en", "ja"])
def test_nothing_that_a_file_says_becomes_markup_on_the_page(hostile_run, tongue):
    watch = Watch(hostile_run)
    watch.tick()
    glance = look(hostile_run, lambda _run: watch)
    html = [*parts_of(watch, tongue)["html"].values(), card(glance, tongue), comparison((glance, glance), tongue)]
    html += [facts(hostile_run, lora, tongue) for lora in watch.view.loras]
    html.append(problem_card(RunMissing(SCRIPT, [SCRIPT]), tongue))
    save_preset(hostile_run.home.presets, "mine", validated({}), SCRIPT)
    html.append(own_list(hostile_run.home, tongue))
    text = "".join(html)
    assert "&lt;script&gt;" in text
    assert not re.search(r"<(script|img src=x)", text)
    assert not re.search(r'"[^"<>]*"><img src=x', text)
    assert SCRIPT[:8] in civitai_text(hostile_run, "a.safetensors")  # shown in a text box, and copied as it is
    assert chart_data(watch.view, 0, tongue)["summary"]


@pytest.mark.parametrize("metadata", [b'{"__metadata__": {"a": ' + b"[" * 100_000, b"[" * 100_000, b"\xff\xff"])
def test_a_lora_file_whose_header_is_no_header_is_told_without_it(hostile_run, metadata):
    (hostile_run.path / "a.safetensors").write_bytes(len(metadata).to_bytes(8, "little") + metadata)
    assert "Pictures" not in civitai_text(hostile_run, "a.safetensors")
    adapter = validated({"adapter": {"start_from": str(hostile_run.path / "a.safetensors")}}).adapter
    with pytest.raises(InvalidSettings, match="cannot be used"):
        check_start(adapter)


@POSIX
def test_a_pipe_in_place_of_a_lora_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(InvalidSettings, match="not a file"):
        check_start(validated({"adapter": {"start_from": str(tmp_path / "pipe.safetensors")}}).adapter)
