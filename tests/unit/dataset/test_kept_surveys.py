"""A folder's survey is kept while no file in it is another, and is what a fresh one would be."""

import os

import pytest
from PIL import Image

from trainer.contract.home import Home
from trainer.contract.settings.dataset import DatasetSettings
from trainer.dataset import kept, scan
from trainer.dataset.errors import NoImages
from trainer.dataset.kept import Surveys
from trainer.dataset.overlay import Entry, change, overlay_file
from trainer.dataset.scan import images_of


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "Bilder ü"
    (made / "more").mkdir(parents=True)
    for name in ("a", "b", "more/c"):
        Image.new("RGB", (64, 64)).save(made / f"{name}.png")
        (made / f"{name}.txt").write_text(f"caption of {name}")
    return made


@pytest.fixture
def counted(monkeypatch):
    """How often a folder was read."""
    asked = []

    def survey(*arguments):
        asked.append(arguments)
        return scan.survey(*arguments)

    monkeypatch.setattr(kept, "survey", survey)
    return asked


def rewritten(path, text):
    """Write a file, at another time than before."""
    path.write_text(text)
    later = path.stat().st_mtime_ns + 10_000_000
    os.utime(path, ns=(later, later))


def test_an_unchanged_folder_is_read_once_and_each_change_is_seen(folder, counted):
    settings, surveys = DatasetSettings(images=str(folder)), Surveys()
    for _ in range(3):
        assert images_of(settings, surveys) == images_of(settings)
    assert len(counted) == 1
    changes = [
        lambda: rewritten(folder / "a.txt", "another"),
        lambda: rewritten(folder / "more" / "c.txt", "caption of d"),  # as long as before
        lambda: (folder / "b.txt").unlink(),
        lambda: Image.new("RGB", (96, 64)).save(folder / "more" / "new.png"),
        lambda: (folder / "a.png").rename(folder / "z.png"),
        lambda: (folder / "more").rename(folder / "10_ana"),
        lambda: (folder / "broken.png").write_bytes(b"no image"),
    ]
    for number, made in enumerate(changes, start=2):
        made()
        assert images_of(settings, surveys) == images_of(settings)
        assert len(counted) == number


def test_what_is_changed_on_the_page_is_seen(tmp_path, folder, counted):
    home, surveys = Home(tmp_path / "home"), Surveys()
    change(home, folder, {"a.png": Entry(text="first")}, "")
    settings = DatasetSettings(images=str(folder), captions=str(overlay_file(home, folder)))
    assert images_of(settings, surveys)[0][0].caption == "first"
    change(home, folder, {"a.png": Entry(text="second")}, "")
    assert images_of(settings, surveys)[0][0].caption == "second"
    assert len(counted) == 2


def test_rules_and_folders_are_told_apart_and_errors_are_not_kept(folder, tmp_path):
    surveys, empty = Surveys(), tmp_path / "empty"
    empty.mkdir()
    (folder / "more").rename(folder / "3_ana")
    weights = [
        [item.weight for item in images_of(DatasetSettings(images=str(folder), folder_repeats=on), surveys)[0]]
        for on in (True, False)
    ]
    assert weights == [[3, 1, 1], [1, 1, 1]]
    for _ in range(2):
        with pytest.raises(NoImages):
            images_of(DatasetSettings(images=str(empty)), surveys)
    Image.new("RGB", (64, 64)).save(empty / "a.png")
    assert len(images_of(DatasetSettings(images=str(empty)), surveys)[0]) == 1


def test_only_so_many_folders_are_kept(tmp_path, counted):
    surveys = Surveys()
    for number in range(kept.KEPT + 1):
        Image.new("RGB", (64, 64)).save((tmp_path / str(number)).with_suffix(".png"))
        one = tmp_path / f"folder {number}"
        one.mkdir()
        Image.new("RGB", (64, 64)).save(one / "a.png")
        surveys(one, None)
    surveys(tmp_path / "folder 1", None)
    assert len(counted) == kept.KEPT + 1
    surveys(tmp_path / "folder 0", None)
    assert len(counted) == kept.KEPT + 2
