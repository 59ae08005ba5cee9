import time

import pytest

from app.dataset import checks
from app.dataset.checks import Check
from app.dataset.folder import ImageFolder
from tests.unit.dataset.test_captions import draw
from tests.unit.dataset.test_overlay import digest
from trainer.dataset.overlay import Entry, change, entries_of, undo

AS = {"preset": "pocket-character"}


@pytest.fixture
def folder(tmp_path):
    """Two images of which one has no caption, and two that are one and the same."""
    folder = tmp_path / "pictures"
    draw(folder / "a.png", (96, 64), "a bear")
    draw(folder / "bare.png", (64, 96))
    draw(folder / "twin.png", (96, 64), "a bear")
    return folder


@pytest.fixture
def ask(home):
    functions = {function.__name__: function for function in checks.answers(home)}
    return lambda what, folder, **more: functions[what]({"folder": str(folder), **AS, **more}, None)


def finished(ask, folder, **more):
    """What the check found, once it has."""
    while (found := ask("check", folder, **more))["state"] == "running":
        time.sleep(0.01)
    return found


def test_a_small_folder_is_checked_without_being_asked(ask, folder):
    found = finished(ask, folder)
    assert found["state"] == "done"
    (bare,) = [finding for finding in found["findings"] if "caption" in finding["message"]]
    assert bare["names"] == ["bare.png"]
    assert bare["why"]
    assert bare["hint"]
    assert bare["level"] == "warning"


def test_findings_name_images_by_their_path_in_the_folder(ask, folder):
    for day in ("day1", "day2"):
        draw(folder / day / "a.png", (96, 64))
    (folder / "raw.nef").touch()
    findings = finished(ask, folder)["findings"]
    messages = " ".join(finding["message"] for finding in findings)
    assert "day1/a.png (as a.png), day2/a.png (as a.png)" in messages
    assert "1 other file is not read: 1 .nef." in messages


def test_many_images_are_checked_when_asked(ask, tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "AT_ONCE", 1)
    folder = tmp_path / "many"
    draw(folder / "a.png")
    draw(folder / "b.png")
    assert ask("check", folder)["state"] == "idle"
    assert ask("check", folder)["state"] == "idle"
    assert finished(ask, folder, start=True)["state"] == "done"
    assert ask("check", folder)["state"] == "done"


def test_many_images_once_checked_are_checked_again_with_every_change(ask, home, tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "AT_ONCE", 1)
    folder = tmp_path / "many"
    draw(folder / "a.png")
    draw(folder / "b.png", caption="a bear")
    finished(ask, folder, start=True)
    change(home, folder, {"a.png": Entry("another bear")})
    found = finished(ask, folder)
    assert found["state"] == "done"
    assert not any("no caption" in finding["message"] for finding in found["findings"])


def test_what_is_judged_for_is_told(ask, folder):
    assert finished(ask, folder, preset="pocket-character")["resolution"] == 64
    large = finished(ask, folder, preset="sdxl-character", resolution=0)
    assert large["resolution"] == 1024
    assert any("1024 x 1024 px" in finding["message"] for finding in large["findings"])
    assert finished(ask, folder, preset="sdxl-character", resolution=768)["resolution"] == 768


def test_a_finding_is_mended_as_one_change_and_the_folder_stays_untouched(ask, home, folder):
    before = digest(folder)
    found = finished(ask, folder)
    number, finding = next((n, one) for n, one in enumerate(found["findings"]) if one["fix"])
    answer = ask("fix", folder, number=number, message=finding["message"])
    assert len(answer["changed"]) == finding["fix"]
    assert len(entries_of(home, folder)) == finding["fix"]
    assert answer["undo"].startswith("Fixed: ")
    left = [one["message"] for one in finished(ask, folder)["findings"]]
    assert finding["message"] not in left
    undo(home, folder)
    assert entries_of(home, folder) == {}
    assert digest(folder) == before


def test_what_was_found_before_a_change_is_not_mended_after_it(ask, home, folder):
    found = finished(ask, folder)
    number, finding = next((n, one) for n, one in enumerate(found["findings"]) if one["fix"])
    change(home, folder, {"a.png": Entry("another")})
    assert "have changed" in ask("fix", folder, number=number, message=finding["message"])["error"]
    finished(ask, folder)
    assert "error" in ask("fix", folder, number=number, message="something else")
    assert "error" in ask("fix", folder, number=10_000, message="")
    assert entries_of(home, folder) == {"a.png": Entry("another")}


def test_a_check_that_fails_says_why(ask, folder, monkeypatch):
    def broken(*_):
        raise RuntimeError("of a kind nobody foresaw")

    monkeypatch.setattr(checks, "examine", broken)
    found = finished(ask, folder)
    assert found["state"] == "failed"
    assert "nobody foresaw" in found["error"]
    assert "raining" not in found["error"]  # none is under way
    monkeypatch.undo()
    assert ask("check", folder)["state"] == "failed"
    assert finished(ask, folder, start=True)["state"] == "done"


def test_a_check_that_nobody_waits_for_ends_early(home, folder, monkeypatch):
    seen = []

    def endless(_items, _problems, _config, _home, told):
        for done in range(10**9):
            seen.append(done)
            told(done, 10**9)

    monkeypatch.setattr(checks, "examine", endless)
    check = Check(home, folder, checks.Checked(folder=str(folder), **AS).config(home), 3)
    check.unwanted.set()
    assert check.finished.wait(60)
    assert check.state == "failed"
    assert len(seen) < 10**9


def test_another_state_of_the_folder_gives_up_the_check_before(home, folder, monkeypatch):
    monkeypatch.setattr(checks, "examine", lambda *_: [])
    known = checks.Checks(home)
    config = checks.Checked(folder=str(folder), **AS).config(home)
    first = known.of(ImageFolder.of(home, str(folder)), config, start=True)
    assert known.of(ImageFolder.of(home, str(folder)), config, start=True) is first
    change(home, folder, {"a.png": Entry("another")})
    second = known.of(ImageFolder.of(home, str(folder)), config, start=True)
    assert second is not first
    assert first.unwanted.is_set()
    for check in (first, second):
        assert check.finished.wait(60)
