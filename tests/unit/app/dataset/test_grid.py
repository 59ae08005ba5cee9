import json
import os
import random
import re
from pathlib import Path

import pytest

import app.dataset.folder
from app.dataset.folder import CHOICES, ImageFolder, _listings
from app.dataset.grid import AT_ONCE, FIRST, answers, with_captions
from app.dataset.page import CaptionGrid, first_page
from app.kit.text import TABLES
from tests.unit.dataset.test_captions import draw
from tests.unit.dataset.test_overlay import digest
from trainer.contract.home import CHECKOUT
from trainer.dataset import overlay
from trainer.dataset.errors import FolderMissing
from trainer.dataset.folders import listing
from trainer.dataset.overlay import Entry, change, entries_of
from trainer.dataset.scan import scan


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pictures"
    for name, caption in (("a", "a bear"), ("b", None), ("c", "fox, Snow"), ("deeper/d", "owl, snow")):
        draw(folder / f"{name}.png", (40, 30), caption)
    return folder


@pytest.fixture
def many(tmp_path):
    for n in range(300):
        draw(tmp_path / "many" / f"{n:03}.png", caption="x" if n % 2 else None)
    return tmp_path / "many"


def ask(home, what, folder, **more):
    functions = {function.__name__: function for function in answers(home)}
    return functions[what]({"folder": str(folder), **more}, None)


def cards(data):
    return {card["name"]: card for card in data["cards"]}


def test_every_image_comes_with_name_size_caption_and_thumbnail(home, folder):
    data = ask(home, "show", folder)
    assert data["names"] == list(cards(data)) == ["a.png", "b.png", "c.png", "deeper/d.png"]
    assert [card["caption"] for card in data["cards"]] == ["a bear", "", "fox, Snow", "owl, snow"]
    assert {card["size"] for card in data["cards"]} == {"40 × 30 px"}
    assert all(card["thumb"].startswith("/atelier/thumb/") for card in data["cards"])


def test_the_summary_counts_and_says_where_changes_lie(home, folder):
    change(home, folder, {"b.png": Entry("a bee")})
    summary = ask(home, "show", folder)["summary"]
    assert summary.startswith("4 images, 4 with captions, 1 edited here.")
    assert str(home.root / "datasets") in summary


def test_a_page_opens_with_all_names_and_the_first_cards_and_no_image_is_opened_for_it(home, many, monkeypatch):
    monkeypatch.setattr("app.dataset.folder.look", None)  # reads all images
    told, data = first_page(home, str(many), "en")
    assert (told, data["whole"]) == ("", False)
    assert data["names"] == [f"{n:03}.png" for n in range(300)]
    assert len(data["cards"]) == FIRST
    assert not (home.root / "thumbnails").exists()


def test_cards_come_by_range_and_never_more_than_a_screen_or_two(home, many):
    some = [f"{n:03}.png" for n in range(100, 120)]
    data = ask(home, "cards", many, shown=[*some, "../gone.png"])
    assert list(data) == ["cards"]
    assert list(cards(data)) == some
    assert len(ask(home, "cards", many, shown=[f"{n:03}.png" for n in range(300)])["cards"]) == AT_ONCE


def test_a_folder_is_read_again_only_when_a_file_in_it_changes(home, folder, monkeypatch):
    assert ask(home, "show", folder)["counts"]["bare"] == 1
    monkeypatch.setattr("app.dataset.folder.look", None)
    assert ask(home, "show", folder)["counts"]["bare"] == 1
    monkeypatch.undo()
    (folder / "b.txt").write_text("a bee")
    assert ask(home, "show", folder)["counts"]["bare"] == 0
    (folder / "b.txt").write_text("a fly")
    os.utime(folder / "b.txt", ns=(0, 0))
    assert cards(ask(home, "show", folder))["b.png"]["caption"] == "a fly"


@pytest.mark.parametrize("what", ["save", "take_back", "do_again"])
def test_for_a_change_the_folder_is_not_listed_anew_and_each_line_is_read_once(home, folder, what, monkeypatch):
    ask(home, "save", folder, name="a.png", caption="another")
    ask(home, "save", folder, name="b.png", caption="a bee")
    ask(home, "take_back", folder)
    listed, read, replay = [], [], overlay._replay
    monkeypatch.setattr("app.dataset.folder.listing", lambda path: listed.append(path) or listing(path))
    monkeypatch.setattr(overlay, "_replay", lambda known, record: read.append(record) or replay(known, record))
    made, plain = [], app.dataset.folder.with_entry
    monkeypatch.setattr("app.dataset.folder.with_entry", lambda one, *rest: made.append(one) or plain(one, *rest))
    overlay._said_in.cache_clear()
    assert "error" not in ask(home, what, folder, name="c.png", caption="fox")
    assert len(made) == 1  # the other images are as they were
    assert (listed, len(read)) == ([], 1)
    assert overlay._said_in.cache_info().misses <= 3  # the lines of three images


def edits_elsewhere(folder):
    """Ways to change what an image's caption is, in the folder itself."""

    def retouch(path, text):
        path.write_text(text, encoding="utf-8")
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))

    line = json.dumps({"file_name": "b.png", "text": "a bee"})
    return {
        "its file": lambda: retouch(folder / "a.txt", "another bear"),
        "a file that was not there": lambda: retouch(folder / "b.txt", "a bee"),
        "a list that was not there": lambda: retouch(folder / "metadata.jsonl", line),
        "a list that is called like an image": lambda: retouch(folder / "captions.toml", "b = ['a bee']"),
        "its file is gone": (folder / "a.txt").unlink,
    }


@pytest.mark.parametrize("way", edits_elsewhere(Path()))
def test_what_was_changed_in_the_folder_is_known_when_a_caption_is_saved(home, folder, way):
    draw(folder / "captions.png", (40, 30), "a list")
    (folder / "captions.toml").write_text("", encoding="utf-8")
    ask(home, "show", folder)
    edits_elsewhere(folder)[way]()
    name = "a.png" if way.startswith("its file") else "b.png"
    own = {item.name: item.caption for item in scan(folder)[0]}[name]
    data = ask(home, "save", folder, name=name, caption=own, shown=[name])
    assert cards(data)[name]["caption"] == own
    assert entries_of(home, folder) == {}  # it is its own, and no change


@pytest.mark.parametrize("seed", range(12))
def test_what_the_page_shows_after_changes_is_what_a_fresh_look_shows(home, folder, seed):
    rng, names = random.Random(seed), ["a.png", "b.png", "c.png", "deeper/d.png"]
    ask(home, "show", folder)
    for _ in range(12):
        match rng.randint(0, 5):
            case 0 | 1:
                caption = rng.choice(["", "fox, snow", "Fox", "a bear"])
                ask(home, "save", folder, name=rng.choice(names), caption=caption, shown=names)
            case 2:
                edit = {"kind": rng.choice(["add", "remove"]), "find": "snow", "put": "ice"}
                ask(home, "bulk", folder, names=rng.sample(names, 2), edit=edit, shown=names)
            case 3:
                ask(home, "leave_out", folder, names=[rng.choice(names)], left_out=rng.random() < 0.5, shown=names)
            case _:
                ask(home, rng.choice(["take_back", "do_again"]), folder, shown=names)
        data = ask(home, "cards", folder, shown=names)["cards"], ImageFolder.of(home, str(folder), again=False)
        _listings.clear()
        fresh = ImageFolder.of(home, str(folder))
        assert data[0] == ask(home, "cards", folder, shown=names)["cards"]
        for what in ("items", "captions", "sets", "names"):
            assert getattr(data[1], what) == getattr(fresh, what), what
        assert list(data[1].tags.items()) == list(fresh.tags.items())


def test_a_saved_caption_is_shown_with_what_it_was_and_the_folder_stays_untouched(home, folder):
    before = digest(folder)
    data = ask(home, "save", folder, name="a.png", caption=" a  brown bear\n", shown=["a.png", "b.png"])
    assert list(cards(data)) == ["a.png", "b.png"]
    assert cards(data)["a.png"]["caption"] == "a brown bear"
    assert "a bear" in cards(data)["a.png"]["note"]
    assert "a.png" in data["status"]
    assert data["changed"] == ["a.png"]
    assert "a.png" in data["undo"]
    assert digest(folder) == before


def test_its_own_caption_again_is_no_change_and_leaves_the_rest(home, folder):
    change(home, folder, {"a.png": Entry("another"), "b.png": Entry("new", focus=(0, 0))})
    ask(home, "save", folder, name="a.png", caption=" a  bear")
    ask(home, "save", folder, name="b.png", caption="")
    assert entries_of(home, folder) == {"b.png": Entry(focus=(0, 0))}


def test_what_somebody_else_changed_since_the_page_looked_stays(home, folder):
    fresh = with_captions(ImageFolder.of(home, str(folder)), {"a.png": "another"})
    change(home, folder, {"a.png": Entry(focus=(0.2, 0.3), left_out=True)})
    change(home, folder, fresh)
    assert entries_of(home, folder) == {"a.png": Entry("another", (0.2, 0.3), left_out=True)}


def test_undoing_and_doing_again_go_to_the_image_and_say_what_it_was(home, folder):
    ask(home, "save", folder, name="a.png", caption="another")
    ask(home, "save", folder, name="b.png", caption="a bee")
    data = ask(home, "take_back", folder, shown=["b.png"])
    assert (data["focus"], cards(data)["b.png"]["caption"]) == ("b.png", "")
    assert "Caption of b.png" in data["status"]
    assert "a.png" in data["undo"]
    assert "b.png" in data["redo"]
    assert cards(ask(home, "do_again", folder, shown=["b.png"]))["b.png"]["caption"] == "a bee"
    assert "Nothing" in ask(home, "do_again", folder)["status"]


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ({"choice": "all"}, ["a.png", "b.png", "c.png", "deeper/d.png"]),
        ({"choice": "bare"}, ["b.png"]),
        ({"choice": "changed"}, ["a.png", "c.png"]),
        ({"choice": "left_out"}, ["c.png"]),
        ({"tags": ["snow"]}, ["c.png", "deeper/d.png"]),
        ({"tags": ["snow", "fox"]}, ["c.png"]),
        ({"text": " SNOW"}, ["c.png", "deeper/d.png"]),
        ({"text": "deeper/"}, ["deeper/d.png"]),
        ({"choice": "bare", "tags": ["snow"]}, []),
    ],
)
def test_each_choice_tag_and_search_shows_its_images(home, folder, asked, shown):
    change(home, folder, {"a.png": Entry("another"), "c.png": Entry(left_out=True)})
    data = ask(home, "show", folder, **asked)
    assert data["names"] == list(cards(data)) == shown
    assert data["counts"] == {"all": 4, "bare": 1, "changed": 2, "left_out": 1}


def test_tags_come_with_their_counts_most_frequent_first(home, folder):
    assert ask(home, "show", folder)["cloud"][:2] == [("snow", 2), ("a bear", 1)]


def test_a_change_to_many_captions_is_looked_at_before_it_is_made_and_is_one_step_to_undo(home, folder):
    asked = {"edit": {"kind": "rename", "find": "snow", "put": "ice"}, "names": ["c.png", "deeper/d.png"]}
    before = digest(folder)
    seen = ask(home, "bulk_preview", folder, **asked)
    assert (seen["count"], seen["of"]) == (2, 2)
    assert seen["examples"][0] == ("c.png", "fox, Snow", "fox, ice")
    assert entries_of(home, folder) == {}
    data = ask(home, "bulk", folder, shown=["c.png"], **asked)
    assert data["changed"] == ["c.png", "deeper/d.png"]
    assert entries_of(home, folder) == {"c.png": Entry("fox, ice"), "deeper/d.png": Entry("owl, ice")}
    assert "2 images" in ask(home, "take_back", folder)["status"]
    assert entries_of(home, folder) == {}
    assert digest(folder) == before


def test_a_change_to_chosen_images_leaves_the_others(home, folder):
    edit = {"kind": "add", "put": "ice"}
    ask(home, "bulk", folder, edit=edit, names=["a.png", "b.png", "gone.png"])
    assert entries_of(home, folder) == {"a.png": Entry("a bear, ice"), "b.png": Entry("ice")}


def test_an_image_that_fits_the_search_only_now_is_not_changed(home, folder):
    """Another window, or the captioner, changed it after it was decided what to change."""
    seen = ask(home, "show", folder, tags=["snow"])["names"]
    change(home, folder, {"b.png": Entry("bee, snow")})
    edit = {"kind": "rename", "find": "snow", "put": "ice"}
    assert ask(home, "bulk", folder, edit=edit, names=seen, tags=["snow"])["changed"] == ["c.png", "deeper/d.png"]
    assert "names" in ask(home, "bulk", folder, edit=edit, tags=["snow"])["error"]
    assert entries_of(home, folder)["b.png"] == Entry("bee, snow")


def test_images_are_left_out_and_taken_in_again_as_one_change(home, folder):
    data = ask(home, "leave_out", folder, names=["a.png", "b.png"], left_out=True, shown=["a.png"])
    assert data["counts"]["left_out"] == 2
    assert cards(data)["a.png"]["left_out"]
    ask(home, "leave_out", folder, names=["a.png"], left_out=False)
    assert entries_of(home, folder) == {"b.png": Entry(left_out=True)}
    ask(home, "take_back", folder)
    assert ask(home, "take_back", folder)["counts"]["left_out"] == 0


def test_what_was_changed_beside_the_caption_is_told_on_the_card(home, folder):
    change(home, folder, {"a.png": Entry(focus=(0.2, 0.3), mask="masks/a.png")})
    assert cards(ask(home, "show", folder))["a.png"]["marks"] == "focus point set · with mask"


def test_an_image_that_cannot_be_opened_does_not_hinder_the_others(home, folder):
    (folder / "broken.png").write_bytes(b"not an image")
    assert len(ask(home, "show", folder)["names"]) == 4


def test_while_the_folder_is_read_no_image_seems_to_lack_its_caption(home, folder):
    change(home, folder, {"a.png": Entry("another")})
    (card,) = ask(home, "cards", folder, shown=["a.png"])["cards"]
    assert (card["caption"], card["note"]) == (None, "")
    ask(home, "show", folder)
    (card,) = ask(home, "cards", folder, shown=["a.png"])["cards"]
    assert card["caption"] == "another"
    assert "a bear" in card["note"]


def test_a_folder_of_images_that_cannot_be_opened_is_read_once_and_says_so(home, tmp_path, monkeypatch):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"not an image")
    data = ask(home, "show", tmp_path / "broken")
    assert (data["whole"], data["names"], data["counts"]["all"]) == (True, [], 0)
    monkeypatch.setattr("app.dataset.folder.look", None)
    assert ask(home, "show", tmp_path / "broken") == data


def test_images_deleted_meanwhile_leave_the_page(home, folder):
    ask(home, "show", folder)
    (folder / "c.png").unlink()
    data = ask(home, "save", folder, name="a.png", caption="x", shown=["a.png", "c.png", "../a.png"])
    assert list(cards(data)) == ["a.png"]


@pytest.mark.parametrize("name", ["gone.png", "../outside.png"])
def test_a_caption_that_cannot_be_saved_is_told(home, folder, name):
    assert name in ask(home, "save", folder, name=name, caption="x")["error"]


def test_a_caption_of_an_image_deleted_meanwhile_names_it(home, folder):
    ask(home, "show", folder)
    (folder / "a.png").unlink()
    assert "'a.png'" in ask(home, "save", folder, name="a.png", caption="x")["error"]


def test_a_folder_that_is_gone_is_told(home, tmp_path):
    for what in ("show", "cards"):
        assert str(tmp_path / "none") in ask(home, what, tmp_path / "none")["error"]
    with pytest.raises(FolderMissing):
        ImageFolder.of(home, str(tmp_path / "none"))


def test_opening_without_a_folder_says_what_to_do_and_a_wrong_one_what_is_wrong(home, tmp_path, folder):
    assert first_page(home, "", "en")[1] is None
    assert "folder" in first_page(home, "", "en")[0]
    told, data = first_page(home, str(tmp_path / "<none>"), "en")
    assert "&lt;none&gt;" in told
    assert data is None
    told, data = first_page(home, f" {folder} ", "en")
    assert (told, len(data["cards"])) == ("", 4)


@pytest.mark.parametrize("tongue", sorted(TABLES))
def test_the_grid_speaks_every_language(home, folder, tongue):
    _, data = first_page(home, str(folder), tongue)
    own = {key: text for key, text in TABLES[tongue].items() if key.startswith("dataset.")}
    assert data["words"] == {key.removeprefix("dataset."): text for key, text in own.items()}
    assert {*CHOICES, *(f"empty.{choice}" for choice in CHOICES)} <= set(data["words"])


def test_every_word_that_the_scripts_use_is_there(home, folder):
    scripts = "".join(path.read_text(encoding="utf-8") for path in (CHECKOUT / "assets" / "dataset").glob("*.js"))
    used = {"".join(found) for found in re.findall(r"""\bwords(?:\.(\w+)|\["([\w.-]+)"\])""", scripts)}
    assert len(used) > 30
    assert used <= set(first_page(home, str(folder), "en")[1]["words"])


def test_the_script_calls_answers_that_are_there(home):
    grid = CaptionGrid(render=False)
    grid.serve(answers(home))
    assert {"show", "save", "take_back"} < set(grid.get_config()["server_fns"])
    assert json.loads(grid.postprocess(None)) is None
