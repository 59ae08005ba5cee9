"""Captions in the tables that people have: CSV, JSON and JSON lines of many programs."""

import json

import pytest

from tests.unit.dataset.test_caption_files import captions, problems
from tests.unit.dataset.test_captions import draw


@pytest.fixture
def folder(tmp_path):
    draw(tmp_path / "a.png")
    draw(tmp_path / "deeper" / "b.png")
    return tmp_path


BOTH = {"a.png": ("a bear, brown",), "deeper/b.png": ("a fox",)}
TABLES = {
    "captions.csv": 'image,caption\na.png,"a bear, brown"\ndeeper/b.png,a fox\n',
    "captions.tsv": "file_name\ttext\na.png\ta bear, brown\ndeeper\\b.png\ta fox\n",
    "metadata.csv": 'file_name,label,text\na.png,7,"a bear, brown"\ndeeper/b.png,8,a fox\n',
    "prompts.csv": "Prompt;File Name\na bear, brown;a.png\na fox;deeper/b.png\n",
    "data.csv": "a.png,a bear, brown\ndeeper/b.png,a fox\n",  # neither header nor quotes
    "captions.txt": "a.png|a bear, brown\ndeeper/b.png|a fox\n",
    "list.txt": "a.png: a bear, brown\ndeeper/b.png: a fox\n",
    "Captions.CSV": "\ufeffimage,caption\r\na.png,a bear, brown\r\n\r\ndeeper/b.png,a fox\r\n",
    "meta_cap.json": json.dumps({"a": {"caption": "a bear", "tags": "brown"}, "deeper/b": {"caption": "a fox"}}),
    "meta_lat.json": json.dumps(
        {"a.png": {"tags": "a bear, brown", "train_resolution": [8, 4]}, "deeper/b.png": {"caption": "a fox"}}
    ),
    "captions.json": json.dumps({"a.png": "a bear, brown", "deeper/b.png": ["a fox"]}),
    "all.json": json.dumps(
        [{"image": "a.png", "caption": "a bear, brown"}, {"image": "deeper/b.png", "tags": ["a fox"]}]
    ),
    "captions_val.json": json.dumps(
        {
            "images": [{"id": 1, "file_name": "a.png"}, {"id": "x", "file_name": "deeper/b.png"}],
            "annotations": [{"image_id": 1, "caption": "a bear, brown"}, {"image_id": "x", "caption": "a fox"}],
        }
    ),
    "data.jsonl": '{"image_path": "/old/home/set/a.png", "caption": "a bear, brown"}\n'
    '{"image_path": "D:\\\\set\\\\deeper\\\\b.png", "caption": "a fox"}\n',
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_read_whatever_program_wrote_it(folder, name):
    (folder / name).write_text(TABLES[name], encoding="utf-8")
    assert captions(folder) == BOTH
    assert problems(folder) == []


def test_several_rows_of_an_image_are_its_captions_in_turn(folder):
    (folder / "captions.txt").write_text("a.png#0\ta bear\na.png#1\ta brown bear\na.png#2\ta bear\n")
    assert captions(folder)["a.png"] == ("a bear", "a brown bear")


def test_paths_of_another_computer_mean_the_longest_that_is_here(folder):
    draw(folder / "b.png")
    (folder / "captions.csv").write_text(f"image,caption\n/data/deeper/b.png,a fox\n{folder.name}/a.png,a bear\n")
    assert captions(folder) == {"a.png": ("a bear",), "b.png": ("",), "deeper/b.png": ("a fox",)}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("captions.csv", 'image,caption\na.png,"a bear\ndeeper/b.png,a fox\n', "unexpected end of data"),
        ("captions.csv", "image,caption\na.png\n", "line 2 has 1 values, not 2"),
        ("captions.csv", "caption,image\na bear, brown,a.png\n", "line 2 has 3 values, not 2"),
        ("captions.csv", "picture,words\na.png,a bear\n" * 2, "no columns called image and caption"),
        ("captions.tsv", "", "no columns called image and caption"),
        ("meta_cap.json", '{"a": {"caption": "a bear"', "not JSON"),
        ("captions.json", "[" * 100_000, "not JSON"),
        ("metadata.json", "7", "neither a list of images nor an object"),
        ("captions.json", '{"a.png": 7, "deeper/b.png": ""}', "a.png has the caption 7, not a text"),
        ("captions.jsonl", '{"image": "a.png", "caption": "x"}\n{"caption": "y"}', "line 2 is no caption (KeyError"),
        ("all.json", '[{"image": "a.png", "caption": "a bear"}, 7]', "entry 2 is no caption"),
        ("captions.csv", "image,caption\na.png," + "x" * (1 << 25), "more than 32 MiB"),
        ("captions.csv", "image,caption\na.png," + "x" * (1 << 18), "field larger than field limit"),
    ],
)
def test_a_table_that_is_damaged_is_named_with_the_reason(folder, name, text, said):
    (folder / name).write_text(text)
    (problem,) = problems(folder)
    assert problem.code == "caption_unreadable"
    assert name in problem.message
    assert said in problem.message


def test_the_good_rows_of_a_damaged_table_count(folder):
    (folder / "captions.csv").write_text('image,caption\nc.png\na.png,a bear\ndeeper/b.png,"a" fox\n')
    assert captions(folder) == {"a.png": ("a bear",), "deeper/b.png": ("",)}
    assert [problem.code for problem in problems(folder)] == ["caption_unreadable"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "image,label\na.png,3\n"),
        ("notes.txt", "First, some words.\nThen others, a.png\n"),
        ("other.csv", "image,caption\nz.png,of another set\n"),
    ],
)
def test_a_table_of_something_else_is_not_read_and_counted_among_such_files(folder, name, text):
    (folder / name).write_bytes(text.encode() + "ä".encode("cp1252"))
    assert captions(folder) == {"a.png": ("",), "deeper/b.png": ("",)}
    (problem,) = problems(folder)
    assert problem.message == f"1 other file is not read: 1 {name[-4:]}."
    assert "image and caption" in problem.hint or "a.png and a.txt" in problem.hint


def test_of_two_tables_that_differ_one_counts_and_both_are_named(folder):
    (folder / "captions.csv").write_text("image,caption\na.png,a bear\ndeeper/b.png,a fox\n")
    (folder / "old.csv").write_text("image,caption\na.png,a bear\ndeeper/b.png,a dog\n")
    assert captions(folder) == {"a.png": ("a bear",), "deeper/b.png": ("a fox",)}
    (problem,) = problems(folder)
    assert problem.code == "caption_tables_differ"
    assert "captions.csv and old.csv have other captions for 1 images (first: deeper/b.png)" in problem.message


@pytest.mark.parametrize("name", ["a.png.txt", "a.png.caption", "a.png.cap", "a.PNG.txt", "A.txt"])
def test_a_caption_with_the_image_s_suffix_or_other_capitals_is_read(folder, name):
    (folder / name).write_text("a bear")
    assert captions(folder)["a.png"] == ("a bear",)
    assert problems(folder) == []


def test_a_caption_without_the_suffix_goes_before_one_with_it(folder):
    (folder / "a.png.txt").write_text("second")
    (folder / "a.caption").write_text("first")
    (folder / "captions.csv").write_text("a.png,third\n")
    assert captions(folder)["a.png"] == ("first",)
    (folder / "a.caption").write_text("  ")
    assert captions(folder)["a.png"] == ("second",)


def test_two_images_that_differ_in_their_suffix_have_captions_of_their_own(folder):
    draw(folder / "a.jpg")
    (folder / "a.png.txt").write_text("a bear")
    (folder / "a.jpg.txt").write_text("a fox")
    assert captions(folder) == {"a.jpg": ("a fox",), "a.png": ("a bear",), "deeper/b.png": ("",)}
    (folder / "a.jpg.txt").unlink()
    (folder / "captions.csv").write_text("a.jpg,a hare\na.png,a wolf\n")
    assert captions(folder) == {"a.jpg": ("a hare",), "a.png": ("a bear",), "deeper/b.png": ("",)}
