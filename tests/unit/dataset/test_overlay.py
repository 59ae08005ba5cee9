import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest

from tests.unit.dataset.test_captions import draw
from trainer.contract.home import Home
from trainer.contract.settings.config import validated
from trainer.contract.settings.dataset import DatasetSettings
from trainer.dataset import overlay
from trainer.dataset.errors import DatasetError, FolderMissing
from trainer.dataset.overlay import (
    Entry,
    change,
    entries_of,
    existing_overlay,
    history,
    history_file,
    overlay_file,
    overlays_in,
    read_overlay,
    redo,
    undo,
    with_overlays,
)
from trainer.dataset.scan import images_of, look, scan
from trainer.planning.ready import settled


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "Ana's images"
    draw(folder / "a.png", caption="a bear")
    draw(folder / "b.png")
    draw(folder / "deeper" / "c.png", caption="a fox")
    return folder


def captions(folder, home):
    return {
        item.path.relative_to(folder).as_posix(): item.caption
        for item in look(folder, existing_overlay(home, folder))[0]
    }


def write(home, folder, **texts):
    """Give images captions; `deeper__c` stands for deeper/c.png."""
    change(home, folder, {f"{name.replace('__', '/')}.png": Entry(text) for name, text in texts.items()})


def steps(go, home, folder):
    """The images of every step that is left that way."""
    return [step.names for step in iter(lambda: go(home, folder), None)]


def lines(*entries):
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


def digest(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_has_one_overlay_with_a_readable_name(home, folder):
    file = overlay_file(home, folder)
    assert re.fullmatch(r"Ana-s-images-[0-9a-f]{8}/metadata.jsonl", file.relative_to(home.root / "datasets").as_posix())
    assert overlay_file(home, folder / "deeper" / "..") == file
    assert overlay_file(home, folder / "deeper") != file


@pytest.mark.parametrize("name", ["...", "写真", "x" * 200, "a/.hidden"])
def test_every_folder_name_makes_an_overlay_that_can_be_written(home, tmp_path, name):
    folder = tmp_path / name
    draw(folder / "a.png")
    write(home, folder, a="a bear")
    assert read_overlay(overlay_file(home, folder)) == {"a.png": Entry("a bear")}


def test_entries_go_before_the_caption_files_and_an_empty_one_means_none(tmp_path, folder):
    (file := tmp_path / "metadata.jsonl").write_text(
        lines({"file_name": "a.png", "text": "ein  Bär,\nbraun", "id": 7}, {"file_name": "deeper/c.png", "text": ""}),
        encoding="utf-8",
    )
    items, (problem,) = scan(folder, file)
    assert [item.caption for item in items] == ["ein Bär, braun", "", ""]
    assert (problem.code, problem.images) == ("no_caption", (folder / "b.png", folder / "deeper" / "c.png"))


def test_a_caption_file_that_an_entry_replaces_is_not_complained_about(tmp_path, folder):
    (folder / "a.txt").write_bytes(b"ein B\xe4r")
    assert next((p.code, p.images) for p in scan(folder)[1]) == ("caption_encoding", (folder / "a.png",))
    (file := tmp_path / "metadata.jsonl").write_text(lines({"file_name": "a.png", "text": "a bear"}))
    assert [p.code for p in scan(folder, file)[1]] == ["no_caption"]


def test_entries_for_images_that_are_gone_are_a_problem(tmp_path, folder):
    entries = [{"file_name": name, "text": "x"} for name in ("b.png", "old.png", "older.png")]
    (file := tmp_path / "metadata.jsonl").write_text(lines(*entries))
    (problem,) = scan(folder, file)[1]
    assert problem.code == "caption_without_picture"
    assert "2 captions" in problem.message
    assert "old.png" in problem.message


def test_a_runs_settings_name_the_captions_by_their_full_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = settled(validated({"dataset": {"images": "pictures", "captions": "metadata.jsonl"}}))
    assert config.dataset.captions == str(tmp_path / "metadata.jsonl")
    assert settled(validated({"dataset": {"images": "pictures"}})).dataset.captions == ""


def test_the_settings_name_folder_and_captions(tmp_path, folder):
    (file := tmp_path / "metadata.jsonl").write_text(lines({"file_name": "b.png", "text": "an owl"}))
    with_file = DatasetSettings(images=str(folder), captions=str(file))
    assert [item.caption for item in images_of(with_file)[0]] == ["a bear", "an owl", "a fox"]
    without = DatasetSettings(images=str(folder))
    assert [item.caption for item in images_of(without)[0]] == ["a bear", "", "a fox"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "JSONDecodeError"),
        ("[1]", "TypeError"),
        ('{"text": "x"}', "file_name"),
        ('{"file_name": "a.png"}', "text"),
        ('{"file_name": "a.png", "text": null}', "None"),
        ('{"file_name": "a.png", "focus": [0.5]}', "focus"),
        ('{"file_name": "a.png", "focus": [0.5, 7]}', "7"),
        ('{"file_name": "a.png", "mask": "../a.png"}', "mask"),
        ('{"file_name": "a.png", "left_out": "yes"}', "left_out"),
    ],
)
def test_a_line_that_is_no_caption_is_refused_with_its_number(tmp_path, line, said):
    file = tmp_path / "metadata.jsonl"
    file.write_text(lines({"file_name": "a.png", "text": "x"}) + "\n" + line + "\n")
    with pytest.raises(DatasetError, match="Line 3") as caught:
        read_overlay(file)
    assert said in caught.value.message
    assert str(file) in caught.value.message


@pytest.mark.parametrize("data", [None, b'{"file_name": "a.png", "text": "B\xe4r"}'])
def test_captions_that_are_missing_or_not_utf_8_are_refused_with_their_path(tmp_path, folder, data):
    file = tmp_path / "metadata.jsonl"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(DatasetError, match="cannot be read") as caught:
        scan(folder, file)
    assert str(file) in caught.value.message


def test_a_line_separator_within_a_caption_does_not_end_its_entry(tmp_path):
    file = tmp_path / "metadata.jsonl"
    file.write_text(lines({"file_name": "./a.png", "text": "one\u2028two\x85three"}), encoding="utf-8")
    assert read_overlay(file) == {"a.png": Entry("one two three")}


def test_a_changed_caption_is_read_back_and_the_users_folder_stays_as_it_was(home, folder):
    before = digest(folder)
    write(home, folder, deeper__c="  a red\n fox ")
    write(home, folder, a="", b="ein Käfer")
    assert captions(folder, home) == {"a.png": "", "b.png": "ein Käfer", "deeper/c.png": "a red fox"}
    assert digest(folder) == before


def test_an_entry_that_says_nothing_is_removed(home, folder):
    write(home, folder, a="another", b="new")
    change(home, folder, {"a.png": Entry(), "b.png": None})
    assert entries_of(home, folder) == {}


def test_an_entry_says_caption_focus_mask_and_whether_it_is_trained(home, folder):
    whole = Entry("a bear", (0.5, 0.25), "masks/1f.png", left_out=True)
    change(home, folder, {"a.png": whole, "b.png": Entry(left_out=True), "deeper/c.png": Entry(focus=(0, 1))})
    assert entries_of(home, folder) == {
        "a.png": whole,
        "b.png": Entry(left_out=True),
        "deeper/c.png": Entry(focus=(0.0, 1.0)),
    }
    assert json.loads(overlay_file(home, folder).read_text().split("\n")[1]) == {"file_name": "b.png", "left_out": True}
    assert captions(folder, home) == {"a.png": "a bear", "b.png": "", "deeper/c.png": "a fox"}


@pytest.mark.parametrize(
    "entry",
    [
        Entry(focus=(0.5, 1.5)),
        Entry(focus=(float("nan"), 0)),
        Entry(mask="../x.png"),
        Entry(mask="/x.png"),
        Entry(mask=""),
    ],
)
def test_a_value_out_of_range_is_refused_and_nothing_is_written(home, folder, entry):
    with pytest.raises(DatasetError, match=r"a\.png"):
        change(home, folder, {"b.png": Entry("x"), "a.png": entry})
    assert existing_overlay(home, folder) is None


@pytest.mark.parametrize(
    "name", ["../outside.png", "missing.png", "/etc/passwd", "deeper/../a.png", "deeper", "a\0.png"]
)
def test_only_an_image_of_the_folder_gets_a_caption(home, folder, name):
    draw(folder.parent / "outside.png")
    with pytest.raises(DatasetError, match="no image"):
        change(home, folder, {"a.png": Entry("another"), name: Entry("x")})
    assert existing_overlay(home, folder) is None


def test_undo_takes_changes_back_one_by_one(home, folder):
    write(home, folder, a="one")
    write(home, folder, a="two", b="an owl")
    assert undo(home, folder).names == ["a.png", "b.png"]
    assert captions(folder, home) == {"a.png": "one", "b.png": "", "deeper/c.png": "a fox"}
    write(home, folder, b="a bee")
    assert steps(undo, home, folder) == [["b.png"], ["a.png"]]
    assert captions(folder, home) == {"a.png": "a bear", "b.png": "", "deeper/c.png": "a fox"}


def test_what_was_undone_is_done_again_until_something_else_is_changed(home, folder):
    write(home, folder, a="one")
    change(home, folder, {"a.png": Entry("two"), "b.png": Entry(left_out=True)}, "two and one")
    assert [(step.names, step.what) for step in (undo(home, folder), undo(home, folder))] == [
        (["a.png", "b.png"], "two and one"),
        (["a.png"], ""),
    ]
    assert [change.what for change in history(home, folder).undone] == ["two and one", ""]
    assert steps(redo, home, folder) == [["a.png"], ["a.png", "b.png"]]
    assert entries_of(home, folder) == {"a.png": Entry("two"), "b.png": Entry(left_out=True)}
    undo(home, folder)
    write(home, folder, b="an owl")
    assert redo(home, folder) is None
    assert entries_of(home, folder) == {"a.png": Entry("one"), "b.png": Entry("an owl")}


def test_a_history_of_captions_alone_is_undone_and_done_again(home, folder):
    write(home, folder, a="three")
    history_file(home, folder).write_text(
        lines({"before": {"b.png": None}}, {"undone": True}, {"before": {"a.png": "one"}}), encoding="utf-8"
    )
    assert steps(undo, home, folder) == [["a.png"]]
    assert entries_of(home, folder) == {"a.png": Entry("one")}
    assert steps(redo, home, folder) == [["a.png"]]
    assert entries_of(home, folder) == {"a.png": Entry("three")}


def test_what_does_not_change_is_no_step_to_undo(home, folder):
    write(home, folder, a="one")
    write(home, folder, a="one ")
    change(home, folder, {"b.png": None, "deeper/c.png": Entry()})
    assert len(history(home, folder).done) == 1


def test_a_torn_line_of_the_history_costs_only_itself(home, folder):
    write(home, folder, a="one")
    with history_file(home, folder).open("ab") as file:
        file.write(b'{"before": {"a.p')
    write(home, folder, b="an owl")
    assert steps(undo, home, folder) == [["b.png"], ["a.png"]]


def test_changes_made_at_the_same_time_all_stay(home, tmp_path):
    names = [draw(tmp_path / "many" / f"{n}.png").name for n in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: change(home, tmp_path / "many", {name: Entry(f"number {name}")}), names))
    assert captions(tmp_path / "many", home) == {name: f"number {name}" for name in names}
    assert len(history(home, tmp_path / "many").done) == 24


def test_parts_of_one_entry_changed_at_the_same_time_all_stay(home, folder):
    parts = [{"text": "a bear"}, {"focus": (0.5, 0.25)}, {"mask": "masks/1f.png"}, {"left_out": True}]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda part: change(home, folder, {"a.png": partial(replace, **part)}), parts))
    assert entries_of(home, folder) == {"a.png": Entry("a bear", (0.5, 0.25), "masks/1f.png", left_out=True)}


def test_a_function_gets_the_entry_that_stands_there_by_then_and_may_take_it_away(home, folder):
    write(home, folder, a="one")
    put = {"a.png": lambda entry: replace(entry, text=f"{entry.text} two"), "b.png": lambda entry: entry}
    assert change(home, folder, put) == ["a.png"]
    assert entries_of(home, folder) == {"a.png": Entry("one two")}
    assert change(home, folder, {"a.png": lambda _entry: None}) == ["a.png"]
    assert entries_of(home, folder) == {}


def test_folders_are_trained_with_what_was_changed_here_unless_they_name_captions(home, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write(home, folder, a="another")
    write(home, folder / "deeper", c="a wolf")
    concepts = [{"images": f"~/{folder.name}/deeper"}, {"images": str(folder), "captions": "~/own.jsonl"}]
    made = with_overlays(DatasetSettings(images=f"~/{folder.name}", concepts=concepts), home)
    first, second = made.concepts
    assert made.captions == str(overlay_file(home, folder))
    assert (first.images, first.captions) == (str(folder / "deeper"), str(overlay_file(home, folder / "deeper")))
    assert second.captions == str(tmp_path / "own.jsonl")
    assert overlays_in(made, home) == [made.captions, first.captions]
    assert with_overlays(DatasetSettings(images=str(tmp_path)), home).captions == ""


def test_a_look_shows_what_can_be_opened_and_names_what_cannot(folder):
    (folder / "broken.png").write_bytes(b"not an image")
    items, problems = look(folder)
    assert [item.path.name for item in items] == ["a.png", "b.png", "c.png"]
    assert [problem.code for problem in problems] == ["unreadable_image", "no_caption"]
    assert str(folder / "broken.png") in problems[0].message
    assert scan(folder) == (items, problems)


def test_an_entry_for_an_image_that_cannot_be_opened_is_not_called_lost(tmp_path, folder):
    (folder / "broken.png").write_bytes(b"")
    (file := tmp_path / "metadata.jsonl").write_text(lines({"file_name": "broken.png", "text": "x"}))
    assert "caption_without_picture" not in [problem.code for problem in look(folder, file)[1]]


def test_a_look_at_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(FolderMissing):
        look(tmp_path / "missing")


def test_an_image_that_was_replaced_is_measured_anew(folder):
    assert (look(folder)[0][0].width, look(folder)[0][0].height) == (8, 4)
    draw(folder / "a.png", (30, 20))
    assert (look(folder)[0][0].width, look(folder)[0][0].height) == (30, 20)
    (folder / "a.png").write_bytes(b"")
    assert look(folder)[1][0].code == "unreadable_image"


def test_a_history_is_read_on_from_where_it_was_read_and_anew_when_it_is_another(tmp_path, monkeypatch):
    home, folder = Home(tmp_path / "home"), tmp_path / "pictures"
    draw(folder / "a.png", (40, 30))
    read, replay = [], overlay._replay
    monkeypatch.setattr(overlay, "_replay", lambda known, record: read.append(record) or replay(known, record))
    for number in range(5):
        change(home, folder, {"a.png": Entry(str(number))}, what=str(number))
        before = history(home, folder)
        assert [step.what for step in before.done] == [str(n) for n in range(number + 1)]
        assert len(read) == number + 1
    file = history_file(home, folder)
    lines = file.read_bytes().splitlines(keepends=True)
    with file.open("ab") as opened:
        opened.write(lines[0].rstrip(b"\n"))  # a line whose end is missing is read, and once more when it is whole
    assert len(history(home, folder).done) == 6
    assert len(before.done) == 5  # who has an earlier one keeps it as it was
    with file.open("ab") as opened:
        opened.write(b"\n")
    assert len(history(home, folder).done) == 6
    for other in (b"".join(lines[1:]), lines[2] * 40, b"".join(reversed(lines)) * 3, b""):
        file.write_bytes(other)  # the same file, with other lines, fewer or more
        fresh = [json.loads(line)["what"] for line in other.splitlines()]
        assert [step.what for step in history(home, folder).done] == fresh
