"""Every reader of what others wrote, as a function of bytes: it comes to an end, and raises nothing but our errors.

Each target is called with a folder of its own and with the bytes. What it raises beyond `TrainerError` is a fault.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

from app.dataset import captioning, checks, grid, image
from app.desk.changes import entered, made
from app.desk.images import images_html
from app.desk.plan import read
from app.desk.state import Desk, state_of
from app.kit.rows import SETTINGS
from app.live.feed import parts_of
from app.live.monitor import Watch
from app.live.result import facts
from app.runs.cards import card, look
from trainer.captioning.from_metadata import of_comfy, of_parameters, plain_prompt, prompt_of
from trainer.captioning.jobs import CaptionJob
from trainer.contract.errors import TrainerError
from trainer.contract.home import Home
from trainer.contract.presets import import_preset, load_preset
from trainer.contract.settings.config import validated
from trainer.dataset.captions import captions_of, tag_frequency
from trainer.dataset.overlay import Entry, change, entries_of, history, overlay_file, redo, undo
from trainer.dataset.scan import scan
from trainer.models.identify import identify
from trainer.models.lora_header import check_start
from trainer.projects.project import Project
from trainer.runs.folder import RunFolder
from trainer.runs.handover import civitai_text
from trainer.runs.queue import Queue

Target = Callable[[Path, bytes], None]
REQUEST: Any = SimpleNamespace(headers={}, query_params={})
CAPTION_FILES = ("a.txt", "a.png.txt", "captions.toml", "metadata.jsonl", "captions.csv", "captions.json")
WITH_CAPTIONS = {"shuffle_tags": True, "tag_dropout": 0.5, "trigger_word": "ana", "folder_repeats": False}
_usual = {place: info.default for place, info in SETTINGS.items()}


def header(folder: Path, data: bytes) -> None:
    """A safetensors file chosen as base model, as LoRA to go on from, and as a run's own; data may be its header."""
    path = folder / "a.safetensors"
    for content in (data, struct.pack("<Q", len(data)) + data + bytes(16)):
        path.write_bytes(content)
        for use in (
            lambda: identify(path),
            lambda: check_start(validated({"adapter": {"start_from": str(path)}}).adapter),
        ):
            with suppress(TrainerError):
                use()


def caption(folder: Path, data: bytes) -> None:
    """Captions in a data set: beside an image, or in a file for many, by the first byte."""
    path = folder / CAPTION_FILES[data[0] % len(CAPTION_FILES) if data else 0]
    _image(folder)
    path.write_bytes(data[1:])
    try:
        items, _ = scan(folder)
        tag_frequency([item.caption for item in items])
        for item in items:
            captions_of(item, validated({"dataset": WITH_CAPTIONS}).dataset, seed=1)
    finally:
        path.unlink()


def events(folder: Path, data: bytes) -> None:
    """A run's log of events, and all that the page shows of it."""
    run = _run(folder)
    run.events_file.write_bytes(data)
    run.log_file.write_bytes(data)
    watch = Watch(run)
    watch.tick()
    parts_of(watch, "en")
    glance = look(run, lambda _run: watch)
    card(glance, "en")
    for lora in watch.view.loras:
        facts(run, lora, "en")
        with suppress(TrainerError):
            civitai_text(run, lora.file)


def process(folder: Path, data: bytes) -> None:
    """What is written down of a run's process, and of the runs that wait."""
    run = _run(folder)
    run.process_file.write_bytes(data)
    run.home.queue_file.write_bytes(data)
    run.process()
    run.status()
    Queue(run.home).waiting()


def config(folder: Path, data: bytes) -> None:
    """A run's settings, and the same file as a preset that is taken in."""
    run = _run(folder)
    run.config_file.write_bytes(data)
    card(look(run, Watch), "en")
    presets, source = folder / "presets", folder / "taken.toml"
    source.write_bytes(data)
    (presets / "taken.toml").unlink(missing_ok=True)
    with suppress(TrainerError):
        import_preset(presets, source)
        load_preset("taken", presets)


def form(folder: Path, data: bytes) -> None:
    """What the Train page's form, or a program in its place, sends: values by the settings' names."""
    given = _json(data)
    _image(folder / "pictures")
    values = {**_usual, "dataset.images": str(folder / "pictures")}
    for name, value in given.items():
        if name in values:
            values[name] = value
    home = Home(folder)
    with suppress(TrainerError):
        read(home, values, "pocket-style", "style")
    with suppress(TrainerError):
        project = next(iter(Project.all(home)), None)
        state_of(home, made(home, project, entered(Desk.of(home, project), given, None)), "en")
    images = values["dataset.images"]
    if isinstance(images, str) and not Path(images).is_absolute():
        images_html(home, folder / "pictures", "", "en")


def question(folder: Path, data: bytes) -> None:
    """What the Dataset page's script asks, or a program in its place: the answer's name, and its question."""
    images, home = folder / "pictures", Home(folder)
    _image(images)
    asked = _json(data)
    place = {"folder": str(images), "preset": "pocket-style", "name": "a.png"}
    for answered in _answers(home):
        if asked.get("ask", answered.__name__) == answered.__name__:
            told = answered({**place, **asked}, REQUEST)
            json.dumps(told).encode()


def overlay(folder: Path, data: bytes) -> None:
    """The changes made to images here, their history, and what a captioner found."""
    images, home = folder / "pictures", Home(folder)
    _image(images)
    file = overlay_file(home, images)
    job = CaptionJob.of(home, images)
    for path in (file, file.with_name("history.jsonl"), job.results_file):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
    for path in (file, file.with_name("history.jsonl")):
        path.write_bytes(data)
        for use in (entries_of, history, undo, redo):
            with suppress(TrainerError):
                use(home, images)
        with suppress(TrainerError):
            change(home, images, {"a.png": Entry(text="a bear")})
        path.unlink(missing_ok=True)
    job.results_file.write_bytes(data)
    job.results()


def prompts(folder: Path, data: bytes) -> None:
    """The prompt in a generated image: as text, and in the chunks of a PNG."""
    text = data.decode(errors="replace")
    for reader in (of_parameters, of_comfy, plain_prompt):
        reader(text)
    path = folder / "made.png"
    for content in (data, _png_of(data)):
        path.write_bytes(content)
        with suppress(TrainerError):
            prompt_of(path)


TARGETS: dict[str, Target] = {
    one.__name__: one for one in (header, caption, events, process, config, form, question, overlay, prompts)
}


def _answers(home: Home) -> list[grid.Answer]:
    """The functions of the Dataset page, but for those that start a process or a thread."""
    every = [*grid.answers(home), *image.answers(home), *checks.answers(home), *captioning.answers(home)]
    return [one for one in every if one.__name__ not in ("caption_start", "check", "fix")]


def _json(data: bytes) -> dict[str, Any]:
    """The values that a request's body holds; none where it holds none, which the server itself refuses."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {"folder": found}


def _image(folder: Path) -> None:
    """A data set of one image."""
    if not (folder / "a.png").exists():
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), "red").save(folder / "a.png")


def _run(folder: Path) -> RunFolder:
    """A run, always the same."""
    run = RunFolder(Home(folder).runs / "run")
    if not run.path.exists():
        made = RunFolder.create(Home(folder), validated({}))
        made.path.rename(run.path)
    return run


def _png_of(data: bytes) -> bytes:
    """A PNG with these bytes as what programs write into it, plain and packed."""
    from malformed import chunk, png, zlib

    parts = [chunk(b"tEXt", key + b"\0" + data) for key in (b"parameters", b"prompt", b"workflow")]
    parts.append(chunk(b"zTXt", b"parameters\0\0" + zlib.compress(data)))
    parts.append(chunk(b"eXIf", data))
    return png(4, 4, zlib.compress(bytes(4 * 13)), before=b"".join(parts))
