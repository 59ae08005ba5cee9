import json

import pytest

from app.captions import AT_ONCE, CHOICES, WORDS, Pictures, answers, grid_data
from app.pages.dataset import CaptionGrid, first_page
from app.text import TABLES
from tests.unit.test_captions import draw
from tests.unit.test_overlay import digest
from trainer.contract.errors import FolderMissing
from trainer.contract.home import Home
from trainer.contract.overlay import write_caption


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pictures"
    for name, caption in (("a", "a bear"), ("b", None), ("c", "a fox"), ("deeper/d", "an owl")):
        draw(folder / f"{name}.png", (40, 30), caption)
    return folder


@pytest.fixture
def many(tmp_path):
    for n in range(150):
        draw(tmp_path / "many" / f"{n:03}.png", caption="x" if n % 2 else None)
    return tmp_path / "many"


def ask(home, what, folder, **more):
    return answers(home)[what]({"folder": str(folder), **more}, None)


def names(data):
    return [card["name"] for card in data["cards"]]


def test_every_picture_comes_with_name_size_caption_and_thumbnail(home, folder):
    data = ask(home, "show", folder)
    assert names(data) == ["a.png", "b.png", "c.png", "deeper/d.png"]
    assert [card["caption"] for card in data["cards"]] == ["a bear", "", "a fox", "an owl"]
    assert {card["size"] for card in data["cards"]} == {"40 × 30 px"}
    assert all(card["thumb"].startswith("/atelier/thumb/") for card in data["cards"])
    assert len(list((home.root / "thumbnails").iterdir())) == 4


def test_the_summary_counts_and_says_where_changes_lie(home, folder):
    write_caption(home, folder, "b.png", "a bee")
    summary = ask(home, "show", folder)["summary"]
    assert summary.startswith("4 pictures, 4 with captions, 1 changed here.")
    assert str(home.root / "datasets") in summary


def test_a_saved_caption_is_shown_with_what_it_was_and_the_folder_stays_untouched(home, folder):
    before = digest(folder)
    shown = ["a.png", "b.png"]
    data = ask(home, "save", folder, name="a.png", text=" a  brown bear\n", shown=shown)
    assert names(data) == shown
    assert data["cards"][0]["caption"] == "a brown bear"
    assert "a bear" in data["cards"][0]["note"]
    assert "a.png" in data["status"]
    assert data["undoable"]
    assert digest(folder) == before


def test_a_picture_just_captioned_stays_in_its_place(home, folder):
    data = ask(home, "save", folder, name="b.png", text="a bee", choice="bare", shown=["b.png"])
    assert names(data) == ["b.png"]
    assert names(ask(home, "show", folder, choice="bare")) == []


def test_undoing_goes_to_the_picture_if_it_is_on_the_page(home, folder):
    ask(home, "save", folder, name="a.png", text="another")
    ask(home, "save", folder, name="b.png", text="a bee")
    data = ask(home, "take_back", folder, shown=["a.png", "b.png"])
    assert (data["focus"], data["cards"][1]["caption"], data["undoable"]) == ("b.png", "", True)
    data = ask(home, "take_back", folder, shown=["c.png"])
    assert (data["focus"], "a.png" in data["status"], data["undoable"]) == ("", True, False)
    assert "nothing" in ask(home, "take_back", folder)["status"]


@pytest.mark.parametrize(
    ("choice", "shown"),
    [
        ("all", ["a.png", "b.png", "c.png", "deeper/d.png"]),
        ("bare", ["b.png", "c.png"]),
        ("changed", ["a.png", "c.png"]),
        ("problems", ["b.png", "c.png", "deeper/d.png"]),
    ],
)
def test_each_choice_shows_its_pictures_and_counts_them(home, folder, choice, shown):
    write_caption(home, folder, "a.png", "another")
    write_caption(home, folder, "c.png", "")
    (folder / "deeper" / "d.txt").write_bytes(b"ein B\xe4r")
    data = ask(home, "show", folder, choice=choice)
    assert names(data) == shown
    assert f"({len(shown)})" in dict(data["choices"])[choice]


@pytest.mark.parametrize("choice", CHOICES)
def test_a_choice_without_pictures_says_so(home, tmp_path, choice):
    draw(tmp_path / "one" / "a.png", caption="a bear")
    data = ask(home, "show", tmp_path / "one", choice=choice)
    assert bool(data["cards"]) != bool(data["empty"])


def test_many_pictures_come_in_pages_that_leave_none_out(home, many):
    pages = [ask(home, "show", many)]
    while pages[-1]["later"]:
        pages.append(ask(home, "show", many, after=names(pages[-1])[-1]))
    assert [name for page in pages for name in names(page)] == [f"{n:03}.png" for n in range(150)]
    assert max(len(page["cards"]) for page in pages) == AT_ONCE
    assert [page["place"] for page in pages] == ["1–60 of 150", "61–120 of 150", "121–150 of 150"]
    assert [page["earlier"] for page in pages] == [False, True, True]
    assert pages[1]["focus"] == "060.png"
    assert names(ask(home, "show", many, before="120.png")) == names(pages[1])


def test_captions_saved_meanwhile_do_not_make_the_next_page_skip_pictures(home, many):
    first = ask(home, "show", many, choice="bare")
    for name in names(first)[:10]:
        write_caption(home, many, name, "new")
    second = ask(home, "show", many, choice="bare", after=names(first)[-1])
    assert names(second)[0] == "120.png"
    assert second["place"] == "51–65 of 65"


def test_only_the_thumbnails_of_the_page_are_made(home, many):
    ask(home, "show", many)
    assert len(list((home.root / "thumbnails").iterdir())) == AT_ONCE


def test_a_picture_that_cannot_be_opened_is_told_and_the_others_are_shown(home, folder):
    (folder / "broken.png").write_bytes(b"not a picture")
    data = ask(home, "show", folder)
    assert len(data["cards"]) == 4
    assert "broken.png" in data["problems"][0]


def test_of_many_problems_the_first_are_told_and_the_others_counted(home, folder):
    for n in range(20):
        (folder / f"broken-{n}.png").touch()
    problems = ask(home, "show", folder)["problems"]
    assert len(problems) == 9
    assert "13" in problems[-1]  # 20 pictures and the missing caption, less 8


def test_pictures_deleted_meanwhile_leave_the_page(home, folder):
    (folder / "c.png").unlink()
    data = ask(home, "save", folder, name="a.png", text="x", shown=["a.png", "c.png", "../a.png"])
    assert names(data) == ["a.png"]


@pytest.mark.parametrize("name", ["gone.png", "../outside.png"])
def test_a_caption_that_cannot_be_saved_is_told(home, folder, name):
    answer = ask(home, "save", folder, name=name, text="x")
    assert name in answer["error"]


def test_a_folder_that_is_gone_is_told(home, tmp_path):
    for what in ("show", "save", "take_back"):
        assert str(tmp_path / "none") in ask(home, what, tmp_path / "none", name="a.png")["error"]
    with pytest.raises(FolderMissing):
        Pictures.of(home, str(tmp_path / "none"))


def test_the_train_page_is_linked_with_this_folder(home, tmp_path):
    draw(tmp_path / "a & b" / "a.png")
    assert ask(home, "show", tmp_path / "a & b")["train"].endswith("a+%26+b")


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
    pictures = Pictures.of(home, str(folder))
    data = grid_data(pictures, pictures.page("all"), "all", tongue)
    assert set(data["words"]) == set(WORDS)
    assert "{" not in json.dumps([list(data["words"].values()), data["summary"], data["choices"], data["place"]])


def test_the_script_may_call_the_answers_and_nothing_else(home):
    grid = CaptionGrid(render=False)
    grid.serve(answers(home))
    assert grid.get_config()["server_fns"] == ["show", "save", "take_back"]
    assert json.loads(grid.postprocess(None)) is None
