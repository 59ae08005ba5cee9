import pytest

from tests.unit.dataset.test_captions import draw
from trainer.dataset.encodings import decoded
from trainer.dataset.scan import scan


@pytest.fixture
def folder(tmp_path):
    draw(tmp_path / "a.png")
    draw(tmp_path / "deeper" / "b.png")
    return tmp_path


def captions(folder):
    return {item.name: (item.caption, *item.others) for item in scan(folder)[0]}


def problems(folder):
    return [problem for problem in scan(folder)[1] if problem.code != "no_caption"]


@pytest.mark.parametrize("suffix", ["txt", "caption", "cap", "TXT"])
def test_a_caption_lies_beside_its_image_under_any_usual_ending(folder, suffix):
    (folder / f"a.{suffix}").write_text("a bear")
    assert captions(folder)["a.png"] == ("a bear",)


def test_an_empty_caption_file_leaves_the_word_to_the_next(folder):
    (folder / "a.txt").write_text(" \n")
    (folder / "a.cap").write_text("a bear")
    assert captions(folder)["a.png"] == ("a bear",)


@pytest.mark.parametrize("name", ["a.json", "a.png.json"])
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ('{"caption": "a bear", "width": 16}', ("a bear",)),
        ('{"prompt": "a bear", "tags": ["brown", "big"]}', ("a bear, brown, big",)),
        ('{"tags": "bear, brown"}', ("bear, brown",)),
        ('{"captions": ["a bear", "a brown bear"]}', ("a bear", "a brown bear")),
        ('{"title": "a.png", "description": ""}', ("table",)),  # as photo services write it
        ('["a bear"]', ("table",)),
        ('{"caption": 7', ("table",)),
    ],
)
def test_the_json_file_of_an_image_is_read_before_a_table(folder, name, said, expected):
    (folder / "captions.csv").write_text("a.png,table")
    (folder / name).write_text(said)
    assert captions(folder)["a.png"] == expected
    (folder / "a.txt").write_text("own")
    assert captions(folder)["a.png"] == ("own",)


def test_a_table_may_write_names_in_other_capitals(folder):
    (folder / "captions.csv").write_text("A.PNG,a bear\nDeeper/B.png,a fox")
    assert captions(folder) == {"a.png": ("a bear",), "deeper/b.png": ("a fox",)}
    assert problems(folder) == []


def test_one_file_holds_many_captions_and_several_for_an_image(folder):
    (folder / "captions.toml").write_text('"a.png" = ["a bear", "a brown\\nbear", ""]\n"deeper/b" = "a fox"\n')
    assert captions(folder) == {"a.png": ("a bear", "a brown bear"), "deeper/b.png": ("a fox",)}
    assert problems(folder) == []


def test_a_name_without_quotes_in_toml_means_the_file_too(folder):
    (folder / "captions.toml").write_text('a.png = "a bear"\n')
    assert captions(folder)["a.png"] == ("a bear",)


def test_a_list_speaks_of_the_folder_it_lies_in(folder):
    (folder / "deeper" / "metadata.jsonl").write_text('{"file_name": "b.png", "text": "a fox"}\n')
    assert captions(folder) == {"a.png": ("",), "deeper/b.png": ("a fox",)}


def test_hugging_faces_metadata_is_read_with_captions_of_either_name(folder):
    (folder / "metadata.jsonl").write_text(
        '{"file_name": "a.png", "text": ["a bear", "another"]}\n\n'
        '{"file_name": "deeper\\\\b.png", "caption": "a fox"}\n'
        '{"file_name": "a.png", "focus": [0.5, 0.5]}\n'
    )
    assert captions(folder) == {"a.png": ("a bear", "another"), "deeper/b.png": ("a fox",)}
    assert problems(folder) == []


def test_an_images_own_file_goes_before_the_toml_and_that_before_the_json_lines(folder):
    (folder / "metadata.jsonl").write_text(
        "".join(f'{{"file_name": "{name}", "text": "json"}}\n' for name in ("a.png", "deeper/b.png", "deeper/c.png"))
    )
    draw(folder / "deeper" / "c.png", caption="own")
    (folder / "captions.toml").write_text('"deeper/b.png" = "toml"\n"deeper/c.png" = "toml"\n')
    assert captions(folder) == {"a.png": ("json",), "deeper/b.png": ("toml",), "deeper/c.png": ("own",)}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("captions.toml", "a = ", "not TOML"),
        ("captions.toml", "a = " + "[" * 5000, "not TOML"),
        ("captions.toml", '"a.png" = 3\nb = [1]\nc = [["x"]]', "3, not a text or a list of texts, and 2 more"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "x"}\n{', "line 2 is no caption"),
        ("metadata.jsonl", "[" * 100_000, "line 1 is no caption"),
        ("metadata.jsonl", '{"text": "x"}\n[]\n"x"\n7', "line 1 is no caption (KeyError: 'file_name'), and 3 more"),
        ("a.txt", "x" * (1 << 20) + "y", "more than 1 MiB"),
    ],
)
def test_a_caption_file_that_makes_no_sense_is_named_with_the_reason(folder, name, text, said):
    (folder / name).write_text(text)
    (problem,) = problems(folder)
    assert problem.code == "caption_unreadable"
    assert name in problem.message
    assert said in problem.message


@pytest.mark.parametrize("text", ['"a.png" = %s' % list(range(100_000)), f'"{"a" * 100_000}" = 3'])  # noqa: UP031
def test_what_is_said_of_a_caption_that_makes_no_sense_is_short(folder, text):
    (folder / "captions.toml").write_text(text)
    (problem,) = problems(folder)
    assert len(problem.message) < 1000


def test_good_lines_count_beside_a_wrong_one(folder):
    (folder / "metadata.jsonl").write_text('{\n{"file_name": "a.png", "text": "a bear"}\n')
    assert captions(folder)["a.png"] == ("a bear",)


def test_a_folder_in_place_of_a_caption_is_no_caption(folder):
    (folder / "a.txt").mkdir()
    assert captions(folder)["a.png"] == ("",)


def test_captions_for_images_that_are_gone_are_a_problem(folder):
    (folder / "captions.toml").write_text('"gone.png" = "x"\n"../a.png" = "y"\n')
    (problem,) = problems(folder)
    assert problem.code == "caption_without_picture"
    assert "2 captions" in problem.message


def test_what_no_caption_can_hold_becomes_a_blank(folder):
    (folder / "a.txt").write_bytes(b"a\0\x1b bear\xef\xbb\xbf\r\n\tbrown")
    (folder / "captions.toml").write_bytes(b"")
    (folder / "metadata.jsonl").write_text('{"file_name": "deeper/b.png", "text": "half \\ud800"}\n')
    assert captions(folder)["deeper/b.png"] == ("half ?",)
    assert "\0" not in captions(folder)["a.png"][0]


@pytest.mark.parametrize(
    ("text", "encoding", "guess"),
    [
        ("ein Bär", "utf-8", ""),
        ("ein Bär", "utf-8-sig", ""),
        ("ein Bär, 猫", "utf-16", ""),
        ("ein Bär, 猫", "utf-32", ""),
        ("ein Bär", "utf-16-le", "UTF-16 without its mark"),
        ("ein Bär", "utf-16-be", "UTF-16 without its mark"),
        ("БЮРО, Москва", "utf-16-le", "UTF-16 without its mark"),
        ("серый кот", "utf-16-be", "UTF-16 without its mark"),
        ("女の子, 長い髪, 青い目", "utf-16-le", "UTF-16 without its mark"),
        ("a\0 brown bear", "utf-8", ""),
        ("ein B\0är", "utf-8", ""),
        ("a bear\0\0\0\0\0\0\0\0", "utf-8", ""),
        ("größer, \0schön, naïve façade", "cp1252", "Windows-1252"),
        ("一个女孩, 长头发,\0 蓝色的眼睛", "gb18030", "GBK"),
        ("größer, „schön“ – naïve façade", "cp1252", "Windows-1252"),
        ("1girl, ねこと女の子、長い髪", "cp932", "Shift JIS"),
        ("一个女孩, 长头发, 蓝色的眼睛", "gb18030", "GBK"),
    ],
)
def test_usual_encodings_are_read_and_a_guess_is_told(text, encoding, guess):
    assert decoded(text.encode(encoding)) == (text, guess)


def test_a_marked_text_that_is_damaged_is_read_as_far_as_it_goes():
    text, guess = decoded("a bear".encode("utf-16") + b"\0")
    assert text.startswith("a bear")
    assert guess == "damaged UTF-16"


def test_captions_of_one_strange_encoding_are_one_problem(folder):
    for name in ("a.txt", "deeper/b.txt"):
        (folder / name).write_bytes("Bär".encode("cp1252"))
    (problem,) = problems(folder)
    assert (problem.code, len(problem.images)) == ("caption_encoding", 2)
    assert "a.txt and 1 more" in problem.message
