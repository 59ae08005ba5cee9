"""Folders to choose from: the user's own and drives; nothing beyond, not by a link either."""

from pathlib import Path

import pytest

from app.desk import folders
from trainer.contract.home import Home
from trainer.projects.sets import keep_dropped


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The user's folder, with images, and one beside it."""
    home = tmp_path / "Omas Ordner ü"
    for name in ("Bilder", ".secret", "Zeug"):
        (home / name).mkdir(parents=True)
    for name in ("a.png", "b.JPG", "c.txt"):
        (home / "Bilder" / name).touch()
    (tmp_path / "others").mkdir()
    monkeypatch.setattr(Path, "home", lambda: home)
    monkeypatch.setattr(folders, "MOUNTS", ())
    return home


def folders_in(path, home=None):
    """As the page asks, in a home without image sets unless another is given."""
    return folders.folders_in(path, home or Home(Path("/no such home")), "Dropped images")


def test_it_begins_with_the_users_own_folder(own):
    assert folders_in("")["folders"] == [{"name": own.name, "path": str(own)}]


def test_a_folder_lists_its_folders_and_counts_its_images(own):
    found = folders_in(str(own))
    assert [one["name"] for one in found["folders"]] == ["Bilder", "Zeug"]
    assert (found["parent"], found["images"]) == ("", 0)
    inner = folders_in(str(own / "Bilder"))
    assert (inner["parent"], inner["images"]) == (str(own), 2)


@pytest.mark.parametrize("path", ["/", "/etc", "{own}/../others", "{own}/no such", "{own}/Bilder/a.png", "\0", "a"])
def test_what_lies_beyond_is_not_listed(own, path):
    assert folders_in(path.format(own=own))["path"] == ""


def test_a_link_out_of_the_users_folder_is_not_followed(own, tmp_path):
    (own / "link").symlink_to(tmp_path / "others")
    (own / "inside").symlink_to(own / "Bilder")
    assert [one["name"] for one in folders_in(str(own))["folders"]] == ["Bilder", "inside", "Zeug"]
    assert folders_in(str(own / "link"))["path"] == ""


def test_drives_are_there_too(own, tmp_path, monkeypatch):
    (tmp_path / "media" / "oma" / "usb" / "Fotos").mkdir(parents=True)
    monkeypatch.setattr(folders, "MOUNTS", (str(tmp_path / "media"),))
    assert [one["name"] for one in folders_in("")["folders"]] == [own.name, "oma", "usb"]
    assert [one["name"] for one in folders_in(str(tmp_path / "media/oma/usb"))["folders"]] == ["Fotos"]


def test_image_sets_are_there_first_and_nothing_that_lies_beside_them(own, tmp_path):
    home = Home(tmp_path / "home")
    kept = keep_dropped(home, [own / "Bilder" / "a.png"])
    (home.sets / "Bilder-12345678").mkdir()
    (home.sets / "Bilder-12345678" / "metadata.jsonl").touch()
    assert folders_in("", home)["folders"][0] == {"name": "Dropped images", "path": str(home.sets)}
    assert folders_in(str(home.sets), home)["folders"] == [{"name": kept.name, "path": str(kept)}]
    found = folders_in(str(kept), home)
    assert (found["images"], found["parent"]) == (1, str(home.sets))
