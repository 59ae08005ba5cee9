"""What was measured of an image is kept until its file changes: counted in decoded files, not in seconds."""

import os
from pathlib import Path

import corpus
import numpy as np
import pytest
import tiny
from PIL import Image

from app.dataset.checks import answers
from trainer.console.main import main
from trainer.contract.home import Home
from trainer.contract.ours import NotOurs
from trainer.contract.settings.config import validated
from trainer.dataset import formats
from trainer.dataset.errors import DatasetError
from trainer.dataset.overlay import change, existing_overlay
from trainer.dataset.scan import images_of, look
from trainer.doctor import duplicates, images, kept, masks, sight
from trainer.doctor.examine import examine
from trainer.doctor.masks import mask_problems


def half(content):
    return content[: len(content) // 2]


@pytest.fixture
def folder(tmp_path):
    """Twelve good images, and: one without an edge, one truncated, one twice, one twice byte for byte."""
    made = corpus.sound(tmp_path / "set")
    Image.new("RGB", (600, 600), "gray").save(made / "plain.png")
    (made / "torn.png").write_bytes(half((made / "03.png").read_bytes()))
    (made / "copy.png").write_bytes((made / "04.png").read_bytes())
    with Image.open(made / "05.png") as image:
        image.save(made / "again.jpg", quality=80)
    return made


@pytest.fixture
def work(monkeypatch):
    """Names of the files that are decoded, digested, and sets of images that are compared, as they come."""
    done = []

    def noting(module, name, said):
        plain = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, **named: (done.append(said(*args)), plain(*args, **named))[1])

    noting(sight, "read_image", lambda path, *_: path.name)
    noting(masks, "read_image", lambda path, *_: path.name)
    noting(masks, "read_mask", lambda path, *_: path.name)
    noting(images.hashlib, "file_digest", lambda file, *_: f"digest of {Path(file.name).name}")
    noting(duplicates, "_Album", lambda seen: f"{len(seen)} compared")
    return done


def found(folder, home, progress=None, **dataset):
    config = validated({"goal": "style", "dataset": {"images": str(folder), "resolution": 512, **dataset}})
    return examine(*look(folder, existing_overlay(home, folder)), config, home, progress)


def told(findings):
    return [(one.code, one.message, one.images, sorted(one.fix or ())) for one in findings]


def sheets(home):
    return sorted((home.cache / "doctor").glob("*.entry"))


def test_images_that_have_not_changed_are_not_decoded_again_and_the_findings_are_the_same(folder, home, work):
    first = told(found(folder, home))
    assert {"blurry", "truncated", "exact_duplicate", "near_duplicate"} <= {code for code, *_ in first}
    assert {"torn.png", "00.png", "digest of copy.png", "14 compared"} <= set(work)
    work.clear()
    assert told(found(folder, home)) == first
    assert work == []


def test_console_and_page_share_what_was_measured(folder, home, work):
    assert main(["doctor", str(folder), "--preset", "sd15-style", "--home", str(home.root)]) == 1
    work.clear()
    check = next(one for one in answers(home) if one.__name__ == "check")
    question = {"folder": str(folder), "preset": "sd15-style", "start": True}
    while (said := check(question, None))["state"] == "running":
        pass
    assert [one["names"] for one in said["findings"] if one["level"] == "error"] == [["torn.png"]]
    assert work == []


def touched(path):
    os.utime(path, ns=(1, 1))


def written_over(path):
    """The same length and time, another content."""
    seen, content = path.stat(), path.read_bytes()
    path.write_bytes(half(content).ljust(len(content), b"?"))
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def replaced(path):
    """By another file of the same length and time."""
    seen, other = path.stat(), path.with_name("other")
    content = path.read_bytes()
    other.write_bytes(half(content).ljust(len(content), b"?"))
    os.utime(other, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("changed", [touched, written_over, replaced])
def test_an_image_that_has_changed_is_measured_again_and_no_other(folder, home, work, changed):
    found(folder, home)
    work.clear()
    changed(folder / "07.png")
    findings = {one.code: one for one in found(folder, home)}
    assert [name for name in work if name.endswith(".png") and " " not in name] == ["07.png"]
    assert (folder / "07.png" in findings["truncated"].images) == (changed is not touched)


def test_a_change_of_captions_or_of_what_is_excluded_decodes_nothing(folder, home, work):
    found(folder, home)
    work.clear()
    (folder / "01.txt").write_text("ana, a boat")
    findings = {one.code: one for one in found(folder, home)}
    change(home, folder, findings["blurry"].fix)
    assert "blurry" not in {one.code for one in found(folder, home)}
    assert [name for name in work if "compared" not in name] == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:0],
        lambda content: content[:1000],
        lambda content: content[:-1] + b"?",
        lambda content: bytes(len(content)),
        lambda content: content.replace(b'"letters":false', b'"letters":true '),
    ],
)
def test_what_is_kept_and_damaged_counts_as_none_and_is_written_again(folder, home, work, damage):
    first = told(found(folder, home))
    for file in sheets(home):
        file.write_bytes(damage(file.read_bytes()))
    work.clear()
    assert told(found(folder, home)) == first
    assert "00.png" in work
    work.clear()
    assert told(found(folder, home)) == first
    assert work == []


def test_what_other_code_has_measured_counts_as_none(folder, home, work, monkeypatch):
    found(folder, home)
    work.clear()
    monkeypatch.setattr(kept, "_measured_by", lambda: b"of the next version")
    found(folder, home)
    assert "00.png" in work


def test_a_check_that_ends_early_keeps_what_it_has_measured(folder, home, work):
    def ended(done, _of):
        if done == 5:
            raise DatasetError("enough", hint="")

    with pytest.raises(DatasetError, match="enough"):
        found(folder, home, ended)
    work.clear()
    found(folder, home)
    assert not {f"{number:02}.png" for number in range(5)} & set(work)


def test_what_is_measured_is_written_at_times_for_a_check_may_be_killed(folder, home, monkeypatch):
    monkeypatch.setattr(kept, "PORTION", 4)
    written = []

    def seen(_done, _of):
        written.append(sum(b'"turned"' in file.read_bytes() for file in sheets(home)))

    found(folder, home, seen)
    assert written[:3] == [0, 0, 0]
    assert written[-1] == 1


def test_checks_at_the_same_time_lose_nothing_of_each_other(folder, home):
    both = [kept.Kept(home, "digests", images.DIGESTS, kept.Folders([folder])) for _ in range(2)]
    for number, one in enumerate(both):
        one.keep(folder / f"0{number}.png", "1", f"of {number}")
    for one in both:
        one.save()
    again = kept.Kept(home, "digests", images.DIGESTS, kept.Folders([folder]))
    assert [again.find(folder / f"0{number}.png", "1") for number in range(2)] == ["of 0", "of 1"]


def test_what_the_system_refuses_is_asked_again(folder, home, monkeypatch):
    plain = formats.open_image

    def refusing(source):
        if source == folder / "02.png":
            raise PermissionError(13, "Permission denied")
        return plain(source)

    with monkeypatch.context() as patch:
        patch.setattr("trainer.dataset.images.open_image", refusing)
        first = {one.code: one for one in found(folder, home)}
    assert folder / "02.png" in first["truncated"].images
    second = {one.code: one for one in found(folder, home)}
    assert folder / "02.png" not in second["truncated"].images


def test_images_that_are_gone_are_forgotten_with_the_next_change(folder, home):
    found(folder, home)
    (folder / "09.png").unlink()
    touched(folder / "08.png")
    found(folder, home)
    assert not any(b"09.png" in file.read_bytes() for file in sheets(home))


def test_no_more_is_kept_than_the_limit_and_what_lay_unused_longest_goes_first(folder, home, tmp_path, monkeypatch):
    for name in ("old", "new"):
        corpus.drawn(tmp_path / name / "00.png")
        found(tmp_path / name, home)
        for file in sheets(home):
            os.utime(file, ns=(1, file.stat().st_mtime_ns - 10**9))
    before = set(sheets(home))
    monkeypatch.setattr(kept, "LIMIT_BYTES", sum(file.stat().st_size for file in before) + 1000)
    found(tmp_path / "new", home)
    found(folder, home)
    work = set(sheets(home))
    assert before - work, "something went"
    monkeypatch.setattr(kept, "LIMIT_BYTES", 0)
    touched(folder / "00.png")
    found(folder, home)
    assert len(sheets(home)) == 1


@pytest.mark.parametrize("place", ["the folder", "a file"])
def test_a_link_in_the_cache_is_refused_and_what_it_leads_to_stays(folder, home, tmp_path, place):
    found(folder, home)
    target = tmp_path / "mine"
    entry = home.cache / "doctor" if place == "the folder" else sheets(home)[0]
    entry.rename(target)
    entry.symlink_to(target)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(NotOurs):
        found(folder, home)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_cache_that_cannot_be_written_stops_no_check(folder, home, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    expected = told(found(folder, Home(home.root / "other")))
    monkeypatch.setattr(kept, "atomic_write", full)
    assert told(found(folder, home)) == expected


def test_masks_that_have_not_changed_are_not_decoded_again(tmp_path, home, work):
    folder = tiny.images(tmp_path / "masked", count=3, size=(160, 128))
    for path in folder.glob("*.png"):
        Image.fromarray(np.full((128, 160), 255, np.uint8)).save(path.with_suffix(".mask.png"))
    (first, *_) = masked = sorted(folder.glob("*.mask.png"))
    names = [path.name for path in masked]

    def problems(resolution=128):
        data = {"images": str(folder), "resolution": resolution}
        config = validated({"model": {"base_model": "pocket"}, "dataset": data})
        items, _ = images_of(config.dataset)
        return [path.name for one in mask_problems(items, config, home) for path in one.images]

    assert problems() == []
    assert sorted(work) == names
    work.clear()
    assert problems() == []
    assert work == []
    Image.fromarray(np.zeros((128, 160), np.uint8)).save(first)
    assert len(problems()) == 1
    assert work == [first.name]
    work.clear()
    assert len(problems(64)) == 1
    assert sorted(work) == names
    work.clear()
    assert [len(problems()), len(problems(64))] == [1, 1]
    assert work == []
