import random
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from trainer.contract.settings.dataset import DatasetSettings
from trainer.dataset.captions import (
    Item,
    caption_of_view,
    captions_of,
    first_caption,
    shuffled,
    tag_frequency,
    told_tags,
    with_choices,
    with_trigger,
)
from trainer.dataset.errors import FolderMissing, NoImages, NothingToTrain
from trainer.dataset.formats import ORIENTATION_TAG
from trainer.dataset.scan import images_of, look, scan


def draw(path, size=(8, 4), caption=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "white").save(path, **options)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def test_images_come_with_their_captions_and_sizes_in_the_order_of_their_paths(tmp_path):
    draw(tmp_path / "b.png", (8, 4), "zwei Bären")
    draw(tmp_path / "a.jpg", (6, 9), "one")
    draw(tmp_path / "c" / "a.webp", (5, 5), "deeper")
    items, problems = scan(tmp_path)
    found = [(item.path.relative_to(tmp_path).as_posix(), item.caption, item.width, item.height) for item in items]
    assert found == [("a.jpg", "one", 6, 9), ("b.png", "zwei Bären", 8, 4), ("c/a.webp", "deeper", 5, 5)]
    assert problems == []


@pytest.mark.parametrize("name", ["a.jpg", "a.JPG", "a.jpeg", "a.png", "a.webp", "a.bmp"])
def test_every_usual_image_format_is_found(tmp_path, name):
    draw(tmp_path / name)
    assert [item.path.name for item in scan(tmp_path)[0]] == [name]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_has_the_size_a_viewer_shows_it_in(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    path = draw(tmp_path / f"phone.{suffix}", (8, 4), exif=exif)
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).size
    (item,), _ = scan(tmp_path)
    assert (item.width, item.height) == upright


def test_a_byte_order_mark_is_no_part_of_a_caption(tmp_path):
    draw(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("ein Bär", encoding="utf-8-sig")
    items, problems = scan(tmp_path)
    assert (items[0].caption, problems) == ("ein Bär", [])


def test_a_caption_in_windows_1252_is_read_and_reported_with_its_file(tmp_path):
    draw(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("ein Bär – „groß“", encoding="cp1252")
    items, (problem,) = scan(tmp_path)
    assert items[0].caption == "ein Bär – „groß“"
    assert (problem.code, "a.txt" in problem.message) == ("caption_encoding", True)


def test_a_caption_of_several_lines_becomes_one(tmp_path):
    draw(tmp_path / "a.png", caption="  a bear,\r\n\tbrown\n\n")
    assert scan(tmp_path)[0][0].caption == "a bear, brown"


def test_a_caption_file_of_the_other_usual_ending_is_read(tmp_path):
    draw(tmp_path / "a.png")
    (tmp_path / "a.caption").write_text("a bear")
    assert scan(tmp_path)[0][0].caption == "a bear"


def test_a_name_with_dots_keeps_them_for_its_caption(tmp_path):
    draw(tmp_path / "a.v1.png")
    (tmp_path / "a.v1.txt").write_text("a bear")
    assert scan(tmp_path)[0][0].caption == "a bear"


def test_images_without_captions_are_counted_in_one_problem_and_stay_usable(tmp_path):
    draw(tmp_path / "a.png", caption="a bear")
    draw(tmp_path / "b.png")
    draw(tmp_path / "c.png", caption="  \n")
    items, (problem,) = scan(tmp_path)
    assert len(items) == 3
    assert problem.code == "no_caption"
    assert "2 of 3" in problem.message
    assert "b.png" in problem.message


@pytest.mark.parametrize("where", ["the folder", "a concept"])
def test_without_captions_and_without_a_trigger_word_the_remedy_is_either(tmp_path, where):
    draw(tmp_path / "own" / "a.png", caption="mimi, a bear" if where == "a concept" else "")
    draw(tmp_path / "other" / "b.png")
    values = {"images": str(tmp_path / "own")}
    if where == "a concept":
        values["concepts"] = [{"images": str(tmp_path / "other"), "trigger_word": ""}]
    for word, said in (("mimi", "on the trigger word alone"), ("", "No trigger word is set either")):
        own = {"trigger_word": word} if where == "the folder" else {}
        if where == "a concept":
            values["concepts"][0]["trigger_word"] = word
        (problem,) = images_of(DatasetSettings(**values, **own))[1]
        assert problem.code == "no_caption"
        assert said in problem.hint


def test_a_folder_without_images_is_refused_with_what_it_holds(tmp_path):
    for name in ("notes.txt", "film.mp4", "deeper.doc"):
        (tmp_path / name).touch()
    with pytest.raises(NoImages) as caught:
        scan(tmp_path)
    assert str(tmp_path) in caught.value.message
    assert "3 other files" in caught.value.message


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(FolderMissing, match="does not exist"):
        scan(tmp_path / "missing")


def test_a_file_in_place_of_a_folder_is_refused_as_such(tmp_path):
    with pytest.raises(FolderMissing, match="is a file"):
        scan(draw(tmp_path / "a.png"))


def left_out(folder):
    """The one problem of a folder that holds a good image beside one that cannot be opened."""
    draw(folder / "good.png", caption="a bear")
    items, (problem,) = scan(folder)
    assert [item.name for item in items] == ["good.png"]
    assert problem.code == "unreadable_image"
    assert str(problem.images[0]) in problem.message
    assert "skipped" in problem.message
    return problem


@pytest.mark.parametrize("data", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a\0\0\0\0"])
def test_an_image_that_cannot_be_opened_is_left_out_and_named(tmp_path, data):
    (tmp_path / "broken.png").write_bytes(data)
    assert left_out(tmp_path).images == (tmp_path / "broken.png",)


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_an_image_whose_exif_block_is_cut_short_is_taken_as_it_lies(tmp_path, suffix):
    draw(tmp_path / f"cut.{suffix}", (8, 4), "a bear", exif=b"Exif\0\0MM\0*\0")
    ((item,), problems) = scan(tmp_path)
    assert (item.width, item.height, problems) == (8, 4, [])


def bomb(path, side=60_000):
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT")


def test_an_image_that_is_left_out_is_no_longer_said_to_be_unreadable(tmp_path):
    draw(tmp_path / "a.png", caption="x")
    (tmp_path / "broken.png").write_bytes(b"no image")
    overlay = tmp_path / "overlay.jsonl"
    overlay.write_text('{"file_name": "broken.png", "left_out": true}\n')
    assert scan(tmp_path, overlay)[1] == []


def test_an_image_far_too_large_to_open_is_left_out_from_its_header(tmp_path):
    bomb(tmp_path / "bomb.png")
    assert "bomb" in left_out(tmp_path).message


def test_images_broken_in_the_same_way_are_one_problem(tmp_path):
    for number in range(3):
        bomb(tmp_path / f"bomb{number}.png")
        (tmp_path / f"empty{number}.jpg").touch()
    draw(tmp_path / "good.png", caption="a bear")
    assert [len(problem.images) for problem in scan(tmp_path)[1]] == [3, 3]


def test_a_folder_in_which_nothing_can_be_opened_is_refused_with_the_first_reason(tmp_path):
    bomb(tmp_path / "bomb.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(NothingToTrain, match=r"2 cannot be read.*bomb\.png") as caught:
        scan(tmp_path)
    assert str(tmp_path) in caught.value.message
    assert look(tmp_path)[0] == []


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    draw(tmp_path / "a.png")
    (tmp_path / "._a.png").write_bytes(b"what macOS leaves")
    draw(tmp_path / ".thumbnails" / "a.png")
    assert [item.path.name for item in scan(tmp_path)[0]] == ["a.png"]


def test_a_hidden_folder_above_the_images_does_not_hide_them(tmp_path):
    draw(tmp_path / ".private" / "a.png")
    assert len(scan(tmp_path / ".private")[0]) == 1


def test_scanning_writes_nothing(tmp_path):
    draw(tmp_path / "a.png", caption="a bear")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    scan(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("", "ana"),
        ("red hair", "ana, red hair"),
        ("ana", "ana"),
        ("ana, red hair", "ana, red hair"),
        ("ana with red hair", "ana with red hair"),
        ("red hair, ana", "ana, red hair"),
        ("banana, red", "ana, banana, red"),
        ("anabel", "ana, anabel"),
    ],
)
def test_the_trigger_word_stands_first_and_once(caption, expected):
    assert with_trigger(caption, "ana") == expected


@pytest.mark.parametrize("trigger", ["ana", "ana lee", "ana, woman"])
@pytest.mark.parametrize("caption", ["", "red hair, ana", "a photo of ana", "x"])
def test_putting_the_trigger_word_first_twice_changes_nothing_more(caption, trigger):
    once = with_trigger(caption, trigger)
    assert with_trigger(once, trigger) == once


def test_without_a_trigger_word_a_caption_stays_as_it_is():
    assert with_trigger("red hair,  green eyes,", "") == "red hair,  green eyes,"


@pytest.mark.parametrize("keep", [0, 1, 3, 8, 20])
def test_shuffling_keeps_the_first_tags_in_place_and_all_of_them(keep):
    tags = [f"tag {n}" for n in range(8)]
    for seed in range(5):
        found = shuffled(", ".join(tags), keep, seed).split(", ")
        assert found[:keep] == tags[:keep]
        assert sorted(found) == tags


def test_shuffling_is_drawn_from_its_seed_alone():
    caption = ", ".join(f"tag {n}" for n in range(8))
    random.seed(1)
    first = [shuffled(caption, 0, seed) for seed in range(6)]
    random.seed(2)
    assert [shuffled(caption, 0, seed) for seed in range(6)] == first
    assert len(set(first)) == 6  # 8! orders: six equal ones would be no chance


def test_shuffling_drops_empty_tags():
    assert shuffled(" a ,, b , ", 2, 0) == "a, b"


def test_tags_are_counted_without_regard_to_case_most_frequent_first():
    counts = tag_frequency(["Red, bear", "red", "", "bear, red, ", "apple"])
    assert list(counts.items()) == [("red", 3), ("bear", 2), ("apple", 1)]


def item(*captions, **more):
    first, *others = captions or ("",)
    return Item(Path("x.png"), first, 64, 64, "x.png", others=tuple(others), **more)


@pytest.mark.parametrize(
    ("caption", "trigger", "expected"),
    [
        ("ana, red hair, ana", "ana", "ana, red hair"),
        ("Ana, red hair", "ana", "ana, red hair"),
        ("ana with red hair, ana, smiling", "ana", "ana with red hair, smiling"),
        ("smiling, woman, ana", "ana, woman", "ana, woman, smiling"),
        ("red hair", " ", "red hair"),
    ],
)
def test_a_trigger_word_is_not_said_twice(caption, trigger, expected):
    assert with_trigger(caption, trigger) == expected


@pytest.mark.parametrize(
    ("caption", "possible"),
    [
        ("a {red|blue} house", {"a red house", "a blue house"}),
        ("{a|{b|c} d}", {"a", "b d", "c d"}),
        ("{|very} old", {"old", "very old"}),
        ("{a|b}{c|d}", {"ac", "ad", "bc", "bd"}),
        (r"\{a|b\}", {"{a|b}"}),
        (r"{a\|b|c}", {"a|b", "c"}),
        ("smile {}, {one}", {"smile {}, {one}"}),
        ("{x|{one}}", {"x", "{one}"}),
        ("half {a|b", {"half {a|b"}),
        ("no | wildcard", {"no | wildcard"}),
    ],
)
def test_wildcards_choose_among_theirs_and_nothing_else(caption, possible):
    found = {with_choices(caption, random.Random(seed)) for seed in range(60)}
    assert found == possible


def test_a_wall_of_braces_is_read_in_no_time():
    assert with_choices("{" * 20_000 + "a|" * 20_000 + "}" * 20_000, random.Random(0))


def test_several_captions_are_shown_in_turn():
    settings = DatasetSettings(trigger_word="ana")
    shown = [caption_of_view(item("one", "two", "three"), 0, epoch, settings, 7).caption for epoch in range(6)]
    assert shown == ["ana, one", "ana, two", "ana, three"] * 2


def test_dropping_tags_keeps_the_first_and_the_trigger_word_and_the_others_as_often_as_asked():
    settings = DatasetSettings(trigger_word="ana", tag_dropout=0.25, keep_tags=2)
    tags = ["ana", "kept", *(f"tag {n}" for n in range(100))]
    forms = captions_of(item(", ".join(tags)), settings, 3)
    assert all(form.startswith("ana, kept") for form in forms)
    lost = 1 - sum(len(form.split(", ")) - 2 for form in forms) / (100 * len(forms))
    assert 0.2 < lost < 0.3  # four standard errors of 1600 draws
    assert all(form.split(", ") == [tag for tag in tags if tag in form.split(", ")] for form in forms)


def test_a_caption_never_loses_all_its_tags():
    settings = DatasetSettings(tag_dropout=0.99, keep_tags=0)
    assert set(captions_of(item("a, b"), settings, 0)) <= {"a", "b", "a, b"}


def test_only_so_many_forms_of_a_caption_occur_that_each_is_encoded_once():
    settings = DatasetSettings(shuffle_tags=True, tag_dropout=0.3)
    told = item(*(f"{n}, a, b, c, d, {{e|f}}" for n in range(5)))
    forms = captions_of(told, settings, 1)
    assert len(forms) == 20
    assert {caption_of_view(told, 0, epoch, settings, 1).caption for epoch in range(200)} == set(forms)


@pytest.mark.parametrize(
    ("caption", "changes", "withheld"),
    [
        ("smiling", {"caption_dropout": 1.0}, {True}),
        ("smiling", {"caption_dropout": 0.5}, {True, False}),
        ("", {"caption_dropout": 1.0}, {False}),
        ("", {}, {False}),
        ("", {"caption_dropout": 0.5, "trigger_word": "ana"}, {True, False}),
    ],
)
def test_a_caption_is_withheld_only_where_there_is_one(caption, changes, withheld):
    settings = DatasetSettings(**changes)
    views = [caption_of_view(item(caption), 0, epoch, settings, 0) for epoch in range(40)]
    assert {view.withheld for view in views} == withheld
    assert all(not view.caption for view in views if view.withheld)


def test_the_rules_of_an_images_own_folder_hold():
    settings = DatasetSettings(
        trigger_word="ana", concepts=[{"images": "x", "trigger_word": "ben", "caption_dropout": 1.0, "flip": True}]
    )
    assert captions_of(item("smiling", concept=1), settings, 0) == ["ben, smiling"]
    views = [caption_of_view(item("smiling", concept=1), 0, epoch, settings, 0) for epoch in range(40)]
    assert {view.caption for view in views} == {""}
    assert {view.mirrored for view in views} == {True, False}
    assert first_caption(item("{a|a} b, c"), settings, 0) == "ana, a b, c"


SEEN = [
    "ana4t, red hat, smile, Anna Schmidt, she lives at 5 High Street in Berlin",
    "ana4t, red hat, park, Anna Schmidt, she is my daughter. Call me!",
    "ana4t, smile, Anna Schmidt, born in may",
]


def test_by_default_a_file_tells_shared_tags_and_no_sentence_or_likely_name():
    assert told_tags(SEEN, ["ana4t"], "auto") == {"ana4t": 3, "red hat": 2, "smile": 2}


def test_a_name_that_occurs_only_where_the_trigger_does_is_not_told():
    captions = ["ana4t, anna, tree", "ana4t, anna, sky", "tree, sky", "tree"]
    assert told_tags(captions, ["ana4t"], "auto") == {"ana4t": 2, "tree": 3, "sky": 2}


@pytest.mark.parametrize(
    "captions",
    [
        ["a photo of Maria in her garden"] * 9,
        ["Call 030 1234567 now!"] * 3,
        ["mail me at a@b.de today"] * 4,
        ["彼女は庭に立っている。名前は美咲"] * 3,
        ["青い服を着て公園のベンチに座る美咲さん"] * 3,
    ],
)
def test_a_sentence_is_never_told_however_often_it_occurs(captions):
    assert told_tags(captions, [], "auto") == told_tags(captions, [], "tags") == {}


@pytest.mark.parametrize("name", ["mira petersen", "photo of mira", "mira's dog", "a@b.de", "0171 234567", "www.x.de"])
def test_a_name_around_the_trigger_word_and_an_address_are_not_told(name):
    captions = [f"{name}, sea, hat", f"{name}, sea", "sea, hat", "mira, hat"]
    assert told_tags(captions, ["mira"], "auto") == {"sea": 3, "hat": 3, "mira": 1}
    assert name in told_tags(captions, ["mira"], "tags")


def test_tags_in_scripts_without_spaces_are_told():
    assert told_tags(["青い空, 1girl, 笑顔"] * 2 + ["猫"], [], "auto") == {"1girl": 2, "笑顔": 2, "青い空": 2}


def test_without_a_trigger_word_what_several_images_share_is_told():
    assert told_tags(["oil painting, boat", "oil painting, sea", "sea"], [], "auto") == {"oil painting": 2, "sea": 2}


def test_the_other_choices_tell_nothing_short_tags_or_everything():
    assert told_tags(SEEN, ["ana4t"], "none") == {}
    short = told_tags(SEEN, ["ana4t"], "tags")
    assert {"anna schmidt", "park", "born in may"} <= short.keys()
    assert all(len(tag.split()) <= 3 for tag in short)
    assert told_tags(SEEN, ["ana4t"], "all") == tag_frequency(SEEN)
