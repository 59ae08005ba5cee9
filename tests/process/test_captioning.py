"""Captioning as a job: in a process of its own, stopped, killed and gone on with; from programs and by flags."""

import hashlib
import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tiny_captioners
from PIL import Image

from trainer.captioning.catalogue import caption_settings
from trainer.captioning.errors import CaptioningBusy, DownloadNeeded
from trainer.captioning.jobs import CaptionJob, prepare, start
from trainer.console import main
from trainer.contract.home import Home
from trainer.dataset.errors import FolderMissing
from trainer.dataset.overlay import Entry, change, entries_of, history, undo
from trainer.engine.captioners import worker as captioning
from trainer.runs import process

ROOT = Path(__file__).parents[2]
COUNT = 60


@pytest.fixture
def folder(tmp_path):
    """Images of several colors; the second has a caption of its own."""
    place = tmp_path / "Bilder ä"
    place.mkdir()
    for number in range(COUNT):
        Image.new("RGB", (64, 48), (number * 4, 99, 255 - number * 4)).save(place / f"red_house_{number:03}.png")
    (place / "red_house_001.txt").write_text("my own")
    return place


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tagger that is sure of everything."""
    place = tmp_path_factory.mktemp("tagger")
    tiny_captioners.tagger(place)
    return place


def settings(folder, captioner="file-names", **more):
    return caption_settings({"folder": str(folder), "captioner": captioner, **more})


def tagging(folder, model, **more):
    pytest.importorskip("onnxruntime")
    return settings(folder, "wd14", model=str(model), general_threshold=0.01, **more)


def ended(job):
    """The job, once its process has ended."""
    for child in process._children:
        child.wait()
    assert job.process() is None
    return job


def done(home, wanted):
    """The job, carried out in this very process: quicker to start."""
    job = prepare(home, wanted)
    try:
        assert captioning.main([str(job.path)]) == 0
    finally:
        job.release()
    return job


def when(job, done):
    """Wait until so many images are done."""
    while len(job.results().done) < done:
        assert job.process() is not None or len(job.results().done) >= done, job.log_file.read_text()
        time.sleep(0.005)


def contents(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def texts(home, folder):
    return {name: entry.text for name, entry in entries_of(home, folder).items()}


def test_a_folder_is_captioned_in_one_change_and_left_as_it_was(home, folder):
    before = contents(folder)
    job = ended(start(home, settings(folder)))
    progress = job.progress()
    assert (progress.status, progress.captioned, progress.kept) == ("completed", COUNT - 1, 1)
    assert set(texts(home, folder).values()) == {"red house"}
    assert "red_house_001.png" not in texts(home, folder)
    assert [one.what for one in history(home, folder).done] == [f"File names: {COUNT - 1}"]
    assert len(undo(home, folder).names) == COUNT - 1
    assert texts(home, folder) == {}
    assert contents(folder) == before


def test_captions_that_are_there_are_replaced_only_when_asked(home, folder):
    job = done(home, settings(folder, overwrite=True))
    assert job.progress().captioned == COUNT
    assert texts(home, folder)["red_house_001.png"] == "red house"


def test_what_else_the_overlay_says_of_an_image_stays(home, folder):
    change(home, folder, {"red_house_000.png": Entry(focus=(0.25, 0.5), left_out=True)})
    done(home, settings(folder))
    assert entries_of(home, folder)["red_house_000.png"] == Entry("red house", (0.25, 0.5), left_out=True)


def test_a_killed_process_goes_on_where_it_was(home, folder, model):
    job = start(home, tagging(folder, model))
    with pytest.raises(CaptioningBusy, match="are being captioned by process"):
        start(home, settings(folder))
    when(job, 5)
    process.force_quit(job)
    found = job.results()
    assert job.progress().status == "interrupted"
    assert texts(home, folder) == {}
    with job.results_file.open("ab") as file:
        file.write(b'{"file_name": "red_hou')  # the line that the kill cut short
    ended(start(home, tagging(folder, model)))
    lines = [json.loads(line) for line in job.results_file.read_bytes().split(b"\n") if line.endswith(b"}")]
    named = [line["file_name"] for line in lines if "file_name" in line]
    assert len(named) == len(set(named)) == COUNT - 1
    assert found.captions.items() <= job.results().captions.items()
    assert job.progress().captioned == len(texts(home, folder)) == COUNT - 1
    assert len(history(home, folder).done) == 1


def test_a_stopped_job_leaves_what_it_has_and_goes_on_with_the_rest(home, folder, model):
    job = start(home, tagging(folder, model))
    when(job, 3)
    job.request("stop")
    first = ended(job).progress()
    assert first.status == "stopped"
    assert 3 <= first.captioned == len(texts(home, folder)) < COUNT - 1
    undone = undo(home, folder).names[0]
    change(home, folder, {undone: Entry(text="by hand")})
    second = ended(start(home, tagging(folder, model))).progress()
    assert (second.status, second.captioned, second.kept) == ("completed", COUNT - 1, 1)
    assert texts(home, folder)[undone] == "by hand"
    assert len(texts(home, folder)) == COUNT - first.captioned


def test_a_caption_written_meanwhile_is_not_replaced(home, folder, monkeypatch):
    def meanwhile(_settings, _items, _report):
        change(home, folder, {"red_house_004.png": Entry(text="by hand")})
        return lambda _item: "seen"

    monkeypatch.setattr(captioning, "open_captioner", meanwhile)
    done(home, settings(folder))
    assert texts(home, folder)["red_house_004.png"] == "by hand"
    assert sorted(texts(home, folder).values()).count("seen") == COUNT - 2


def test_a_caption_written_while_those_found_are_put_in_is_not_replaced(home, folder, monkeypatch):
    job = prepare(home, settings(folder))
    for number in (3, 4):
        job.note(file_name=f"red_house_{number:03}.png", text="seen")
    look = CaptionJob.look

    def meanwhile(job):
        seen = look(job)
        change(home, folder, {"red_house_003.png": Entry(focus=(0.1, 0.2)), "red_house_004.png": Entry("by hand")})
        return seen

    monkeypatch.setattr(CaptionJob, "look", meanwhile)
    job.apply()
    assert entries_of(home, folder) == {
        "red_house_003.png": Entry("seen", (0.1, 0.2)),
        "red_house_004.png": Entry("by hand"),
    }


def test_the_words_of_a_folder_named_as_in_kohyas_tools_are_no_caption_of_its_images(home, folder):
    shutil.copytree(folder, folder.with_name("10_ana woman"))
    progress = done(home, settings(folder.with_name("10_ana woman"))).progress()
    assert (progress.captioned, progress.kept) == (COUNT - 1, 1)


def test_another_captioner_begins_anew_and_loses_nothing(home, folder):
    job = prepare(home, settings(folder))
    job.note(file_name="red_house_000.png", text="found before the crash")
    done(home, settings(folder, "folder-names"))
    captions = texts(home, folder)
    assert captions.pop("red_house_000.png") == "found before the crash"
    assert list(captions.values()) == ["Bilder ä"] * (COUNT - 2)
    assert len(history(home, folder).done) == 2


def test_images_that_cannot_be_read_are_passed_over_and_told(home, folder):
    (folder / "aa.png").write_bytes(b"no image")
    whole = (folder / "red_house_002.png").read_bytes()
    (folder / "red_house_002.png").write_bytes(whole[:60])  # its header is whole
    progress = done(home, settings(folder, "nearest")).progress()
    assert progress.status == "completed"
    assert progress.unreadable == 2
    assert {"aa.png", "red_house_002.png"} <= set(
        " ".join(one.message for one in progress.warnings).replace("/", " ").replace(":", " ").split()
    )


def test_a_failure_is_told_and_the_work_goes_on_from_there(home, folder, monkeypatch):
    def fails(_settings, _items, _report):
        return lambda item: 1 / 0 if item.name == "red_house_003.png" else "seen"

    monkeypatch.setattr(captioning, "open_captioner", fails)
    job = prepare(home, settings(folder))
    assert captioning.main([str(job.path)]) == 2
    failed = job.progress()
    assert failed.failed.message.startswith("Captioning failed: ZeroDivisionError")
    assert (failed.status, failed.captioned) == ("failed", 2)
    monkeypatch.undo()
    job.release()
    assert done(home, settings(folder)).progress().captioned == COUNT - 1
    assert sorted(texts(home, folder).values()).count("seen") == 2


def test_a_stop_breaks_a_download_off(home, folder, monkeypatch):
    job = prepare(home, settings(folder))
    told = threading.Event()

    def fetches(_settings, _items, report):
        report("download", 1, 10)
        job.request("stop")
        told.set()
        report("download", 2, 10)
        raise AssertionError

    monkeypatch.setattr(captioning, "open_captioner", fetches)
    assert captioning.main([str(job.path)]) == 0
    assert told.is_set()
    assert job.progress().status == "stopped"


def test_what_cannot_begin_is_refused_before_a_process_starts(home, folder, tmp_path):
    with pytest.raises(FolderMissing):
        start(home, settings(tmp_path / "nowhere"))
    with pytest.raises(DownloadNeeded):
        start(home, settings(folder, "blip"))
    assert not CaptionJob.of(home, folder).exists


def test_one_command_captions_and_tells_what_came_of_it(folder, tmp_path):
    shutil.copy(folder / "red_house_000.png", folder / "IMG_0001.png")
    command = [sys.executable, str(ROOT / "launch.py"), "caption", str(folder), "--with", "file-names"]
    command += ["--home", str(tmp_path / "home")]
    told = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    assert f"Completed: {COUNT - 1} captioned, 1 without a result, 1 keep their caption." in told.stdout
    assert texts(Home(tmp_path / "home"), folder)["red_house_000.png"] == "red house"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--with", "blop"], "captioner = 'blop'"),
        (["--with", "blip"], "--download"),
        (["--with", "blip", "--model", "/"], "config.json is missing"),
        ([], "--with"),
        (["--with", "metadata", "--general-threshold", "2"], "general_threshold"),
    ],
)
def test_a_command_that_cannot_be_done_says_why(folder, tmp_path, capsys, arguments, told):
    assert main.main(["--caption", str(folder), "--home", str(tmp_path / "home"), *arguments]) == 2
    assert told in " ".join(capsys.readouterr().out.split())


def test_its_flags_are_listed(capsys):
    for arguments, flags in (
        (["--caption", "x", "--help"], ("--with", "--model", "--overwrite", "--download", "florence2")),
        (["caption", "--help"], ("--with", "--detail")),
        (["--help"], ("caption DIR --with NAME",)),
    ):
        assert main.main(arguments) == 0
        shown = capsys.readouterr().out
        assert all(flag in shown for flag in flags)
