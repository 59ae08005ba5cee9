"""Image sets: dropped files lose nobody's place, and a set is called otherwise wherever it is named."""

import hashlib

import psutil
import pytest
from PIL import Image

from trainer.captioning.jobs import CaptionJob
from trainer.contract.errors import InvalidSettings
from trainer.contract.home import Home
from trainer.contract.ours import NotOurs
from trainer.contract.settings.config import validated
from trainer.dataset.overlay import Entry, change, entries_of, overlay_file
from trainer.projects.project import Project
from trainer.projects.sets import all_sets, is_set, keep_dropped, rename
from trainer.runs.folder import RunFolder
from trainer.runs.queue import Queue


@pytest.fixture
def home(tmp_path):
    """A home with nothing in it."""
    return Home(tmp_path / "home ü")


@pytest.fixture
def folder(tmp_path):
    """A user's own folder: three images with captions."""
    path = tmp_path / "Omas Bilder ü"
    path.mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path / f"{number}.png")
        (path / f"{number}.txt").write_text(f"picture {number}")
    return path


@pytest.fixture
def one(home, folder):
    """A set of those images."""
    return keep_dropped(home, sorted(folder.iterdir()))


def test_dropped_files_are_copied_images_and_captions_only(home, folder):
    (folder / "virus.exe").write_bytes(b"MZ")
    before = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    kept = keep_dropped(home, sorted(folder.iterdir()))
    assert kept.is_relative_to(home.root / "datasets")
    assert {path.name for path in kept.iterdir()} == before.keys() - {"virus.exe"}
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()} == before
    assert keep_dropped(home, []) != kept


def dropped(folder, *names):
    """Uploads, each in a folder of its own and with its name as content."""
    files = []
    for number, name in enumerate(names):
        file = folder / f"{number}-{len(list(folder.glob('*')))}" / name
        file.parent.mkdir(parents=True)
        file.write_text(f"{number} {name}")
        files.append(file)
    return files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_drop_that_fails_keeps_what_came(home, folder, tmp_path):
    with pytest.raises(FileNotFoundError):
        keep_dropped(home, [folder / "0.png", tmp_path / "gone.png"])
    (kept,) = (home.root / "datasets").iterdir()
    assert names(kept) == ["0.png"]


def test_two_dropped_images_of_one_name_are_two(home):
    uploads = home.temporary / "gradio"
    kept = keep_dropped(home, dropped(uploads, "a.png", "a.txt", "a.png", "a.txt", "A.PNG"))
    assert names(kept) == ["A-3.PNG", "a-2.png", "a-2.txt", "a.png", "a.txt"]
    assert [(kept / name).read_text()[0] for name in ("a.png", "a.txt", "a-2.png", "a-2.txt")] == ["0", "1", "2", "3"]
    assert [path for path in uploads.rglob("*") if path.is_file()] == []  # one copy of each


def test_captions_and_masks_of_every_name_stay_with_their_dropped_image(home):
    uploads = home.temporary / "gradio"
    kept = keep_dropped(home, dropped(uploads, "a.png"))
    keep_dropped(home, dropped(uploads, "a.jpg", "a.png", "a.png.txt", "a.mask.png", "a-masklabel.png"), kept)
    assert names(kept) == ["a-2-masklabel.png", "a-2.jpg", "a-2.mask.png", "a-3.png", "a-3.png.txt", "a.png"]


def test_dropping_again_adds(home):
    uploads = home.temporary / "gradio"
    kept = keep_dropped(home, dropped(uploads, "a.png", "b.jpg"))
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    assert keep_dropped(home, dropped(uploads, "a.png", "a.txt", "c.png"), kept) == kept
    assert {name: (kept / name).read_bytes() for name in before} == before
    assert names(kept) == ["a-2.png", "a-2.txt", "a.png", "b.jpg", "c.png"]


def test_a_caption_dropped_later_goes_beside_its_image(home):
    uploads = home.temporary / "gradio"
    kept = keep_dropped(home, dropped(uploads, "a.png"))
    keep_dropped(home, dropped(uploads, "a.txt"), kept)
    assert names(kept) == ["a.png", "a.txt"]


def test_a_folder_of_the_user_s_is_never_added_to(home, folder):
    before = names(folder)
    assert keep_dropped(home, dropped(home.temporary, "a.png"), folder) != folder
    assert names(folder) == before


# other names


def test_a_new_name_is_taken_over_by_projects_edits_and_runs(home, one):
    change(home, one, {"0.png": Entry(text="edited here")}, "one caption")
    project = Project.create(home, "ana", {"dataset.images": str(one), "output.name": str(one)[:10]})
    other = Project.create(home, "other", {"dataset.images": str(one) + " not this", "model.base_model": "pocket"})
    concepts = [{"images": f"{one}/hats", "trigger_word": "hat"}, {"images": "/elsewhere"}]
    third = Project.create(home, "third", {"dataset.concepts": concepts})
    captions = str(overlay_file(home, one))
    run = RunFolder.create(home, validated({"dataset": {"images": str(one), "captions": captions}}))
    before, counted = {path.name: path.read_bytes() for path in one.iterdir()}, other.read().changes

    fresh = rename(home, one, " Omas Bilder ü ")

    assert fresh == home.sets / "Omas Bilder ü"
    assert {path.name: path.read_bytes() for path in fresh.iterdir()} == before
    assert not one.exists()
    assert project.read().values == {"dataset.images": str(fresh), "output.name": str(one)[:10]}
    assert third.read().values["dataset.concepts"] == [{**concepts[0], "images": f"{fresh}/hats"}, concepts[1]]
    assert other.read().changes == counted, "what does not name it is not written"
    assert entries_of(home, fresh) == {"0.png": Entry(text="edited here")}
    assert (run.config().dataset.images, run.config().dataset.captions) == (str(fresh), str(overlay_file(home, fresh)))
    assert all_sets(home) == [fresh]
    assert keep_dropped(home, [], fresh) == fresh, "more can be dropped"

    again = rename(home, fresh, "ana")
    assert run.config().dataset.images == str(again), "and once more"


def test_a_name_that_is_taken_gets_a_number(home, one):
    second = keep_dropped(home, [])
    assert rename(home, one, "ana").name == "ana"
    assert rename(home, second, "ANA").name == "ANA-2"
    assert rename(home, home.sets / "ana", "Ana").name == "Ana", "its own in capitals is not taken"
    overlay_file(home, home.sets / "gone").parent.mkdir()  # edits of a set that is gone
    assert rename(home, home.sets / "Ana", "gone").name == "gone-2"


@pytest.mark.parametrize("name", ["", "..", "../out", "a/b", "a\\b", "CON", ".hidden", "x" * 300, "a\0b"])
def test_a_name_that_no_folder_can_have_is_refused_and_nothing_moves(home, one, name):
    with pytest.raises(InvalidSettings, match="name"):
        rename(home, one, name)
    assert len(list(one.iterdir())) == 6


def test_only_sets_are_renamed(home, one, folder, tmp_path):
    change(home, folder, {"0.png": Entry(text="edited here")}, "one caption")
    edits = overlay_file(home, folder).parent
    for path in (folder, edits, home.sets, one / "0.png", tmp_path / "gone"):
        assert not path.exists() or path.is_file() or not is_set(home, path)
        with pytest.raises((InvalidSettings, NotOurs)):
            rename(home, path, "ana")
    (tmp_path / "linked").symlink_to(folder)
    assert not is_set(home, tmp_path / "linked"), "a user's own folder may be a link"
    (home.sets / "link").symlink_to(folder)
    with pytest.raises(NotOurs):
        rename(home, home.sets / "link", "ana")
    assert all_sets(home) == [one]
    assert sorted(path.name for path in folder.iterdir())[0] == "0.png"


@pytest.mark.parametrize("at_work", ["a run in training", "a run that waits", "captioning"])
def test_while_something_reads_it_it_keeps_its_name(home, one, monkeypatch, at_work):
    run = RunFolder.create(home, validated({"dataset": {"images": str(one)}}))
    if at_work == "captioning":
        job = CaptionJob.of(home, one)
        job.path.mkdir(parents=True)
        job.record(psutil.Process())
    else:
        monkeypatch.setattr(Queue, "active" if at_work == "a run in training" else "waiting", asked(run, at_work))
    with pytest.raises(Exception, match=r"captioned|needed by"):
        rename(home, one, "ana")
    assert one.is_dir()


def asked(run, at_work):
    """What the queue answers."""
    return lambda _queue: run if at_work == "a run in training" else [run]
