"""Captions that were once prompts: what is syntax in them, and what only looks like it."""

import corpus
import pytest

from tests.unit.doctor.test_examine import digests, found, mended
from trainer.console import main
from trainer.dataset.overlay import change, entries_of, undo
from trainer.doctor.prompt_syntax import LONGEST, without_syntax

SYNTAX = {
    r"1girl, saber \(fate\), smile": "1girl, saber (fate), smile",
    r"saber \\(fate\\), \[x\]": "saber (fate), x",
    "a woman with a (red hat:1.3) in ((snow))": "a woman with a red hat in snow",
    "(masterpiece, best quality:1.2), [blurry], <lora:mira_v2:0.6>, 1girl": "masterpiece, best quality, blurry, 1girl",
    "((a cat:1.2), (b:1.1):1.3), c": "a cat, b, c",
    "a (((very red))) hat, ((soft light:1.2))": "a very red hat, soft light",
    r"((saber \(fate\):1.2)), smile": "saber (fate), smile",
    "1girl BREAK blue hair BREAK red hat": "1girl, blue hair, red hat",
    "masterpiece, BREAK, 1girl ADDCOMM red hat": "masterpiece, 1girl, red hat",
    "a cat :1.2 AND a dog :0.8": "a cat and a dog",
    "{{masterpiece}}, {girl}, {red|blue} hat": "masterpiece, girl, {red|blue} hat",
    "{0.5::red|0.3::blue} hat, {2$$oak|elm|ash}": "{red|blue} hat, {oak|elm|ash}",
    "[cow|horse] in a field, [cat:dog:0.5]": "{cow|horse} in a field, {cat|dog}",
    "[:hat:0.4], [scarf:12], [coat::0.5]": "hat, scarf, coat",
    "1.3::red hat::, girl": "red hat, girl",
    "(red hat)++ on a (woman)1.2": "red hat on a woman",
    "red hat:1.2, blue scarf:0.8": "red hat, blue scarf",
    "a cat Negative prompt: bad hands Steps: 20, Sampler: Euler a, Seed: 7": "a cat",
    "a cat at night Steps: 20, Sampler: Euler a": "a cat at night",
    "a cat in the rain --ar 16:9 --v 6 --style raw": "a cat in the rain",
    "girl, embedding:easynegative, <hypernet:x:1>, <lyco:y>": "girl",
    "__hair_color__ eyes, smile": "hair color eyes, smile",
    "(a hat), (red:1.1), (scarf: 1.2)": "a hat, red, scarf",
    "(1990:1.2), (absent hat:0), dog, (cat:1.1)": "(1990:1.2), dog, cat",
    "{(red:1.2)|blue} hat": "{red|blue} hat",
    "[[old]], (new:.5)": "old, new",
}
PLAIN = [
    "a woman (with a hat) by the lake",
    "a woman, (a hat), red",
    "(a hat)",
    "1girl, :), :(, ;), >:(, >:), :3, :d, ^_^, @_@, >_<, =), (=, x_x, ._., +_+, |_|, :o",
    "sad face :( and happy :)",
    "saber_(fate), artoria_pendragon_(lancer)_(fate), mario_(series)",
    r"\(^o^)/, \o/, \(o_o)/",
    "a monitor (ratio 16:9), at (7:30), (John 3:16), (score 2:1), (1:1.4), lens (f/1:1.4)",
    "a person (age: 5), (aperture: 1.8), (ISO 100)",
    'a sign that says "FISH AND CHIPS", COFFEE BREAK, the word BREAK on a wall, "BREAK"',
    "black and white, break dance, C++ book, a heart <3, a < b > c",
    "figure [1], {red|blue} hat, {a|{b|c}}",
    "100%, 50:50, 3:2, 10:30 pm, http://a.b/c:80, 8k -- sharp, well-known, e.g. (b. 1990)",
    "((( , ))), unbalanced (red hat, [more",
    "¯\\_(ツ)_/¯",
    "steps: 20, three sides",
]


@pytest.mark.parametrize("caption", SYNTAX)
def test_syntax_becomes_the_words_it_means(caption):
    words, pieces = without_syntax(caption)
    assert words == SYNTAX[caption]
    assert pieces
    assert all(piece in caption for piece in pieces)
    assert without_syntax(words)[0] == words, "nothing is left over"


@pytest.mark.parametrize("caption", PLAIN)
def test_ordinary_captions_are_let_be(caption):
    assert without_syntax(caption) == (caption, [])


def test_the_trigger_word_is_no_syntax_and_takes_the_place_of_its_placeholder():
    assert without_syntax("[ana] woman", "[ana]") == ("[ana] woman", [])
    assert without_syntax("ana_(x:1.2), (hat:1.2)", "ana_(x:1.2)")[0] == "ana_(x:1.2), hat"
    assert without_syntax("photo of [trigger] in a park", "ana")[0] == "photo of ana in a park"


@pytest.mark.parametrize("letters", ["(", "[", "{", "\\(", "((a", "a:1.2,", "(a:", "__", " ,"])
def test_captions_made_to_be_slow_are_not(letters):
    without_syntax((letters * LONGEST)[:LONGEST])
    assert without_syntax(f"{letters * LONGEST}, (hat:1.2)")[1] == []


@pytest.fixture
def folder(tmp_path):
    made = corpus.sound(tmp_path / "set")
    (made / "01.txt").write_text(r"ana, saber \(fate\), (hat:1.3)")
    (made / "02.txt").write_text("ana, <lora:mira:0.6>, {red|blue} hat BREAK a fox")
    (made / "04.txt").write_text("ana, a bear (brown) in a field, :)")
    return made


def test_captions_with_it_are_counted_and_named_and_the_fix_can_be_undone(folder, home):
    before = digests(folder)
    finding = found(folder, home)["prompt_syntax"]
    assert finding.message == (
        "Prompt syntax in 2 captions: 01.png (“\\(”, “\\)”, “(hat:1.3)”), 02.png (“<lora:mira:0.6>”, “BREAK”)."
    )
    assert finding.images == (folder / "01.png", folder / "02.png")
    assert change(home, folder, finding.fix) == ["01.png", "02.png"]
    assert entries_of(home, folder)["01.png"].text == "ana, saber (fate), hat"
    assert entries_of(home, folder)["02.png"].text == "ana, {red|blue} hat, a fox"
    assert "prompt_syntax" not in found(folder, home)
    undo(home, folder)
    assert entries_of(home, folder) == {}
    assert digests(folder) == before


def test_a_wildcard_is_mended_within_and_several_captions_of_an_image_are_named_without_a_fix(folder, home):
    (folder / "01.txt").write_text("ana, {0.7::red|blue} hat")
    (folder / "02.txt").unlink()
    (folder / "captions.toml").write_text('"02.png" = ["ana, a fox", "ana, (a fox:1.3)"]\n')
    (folder / "03.txt").write_text("<lora:mira:0.6>")
    finding = found(folder, home)["prompt_syntax"]
    assert [path.name for path in finding.images] == ["01.png", "02.png", "03.png"]
    assert mended(finding, "01.png") == "ana, {red|blue} hat"
    assert list(finding.fix) == ["01.png"]  # of the third nothing would be left


def test_the_console_fixes_and_undoes_it(folder, home, capsys):
    def doctor(*flags):
        assert main.main(["doctor", str(folder), *flags, "--home", str(home.root)]) == 0
        return capsys.readouterr().out

    assert "prompt_syntax  Prompt syntax in 2 captions: 01.png" in doctor()
    assert "prompt_syntax: 2 images fixed" in doctor("--fix", "prompt_syntax")
    assert "prompt_syntax" not in doctor()
    assert "Undone: prompt_syntax, for 2 images" in doctor("--undo")
    assert "Prompt syntax in 2 captions" in doctor()
