"""What a file name, a preset or a model says is shown as text; progress in a terminal, a file and a pipe."""

import pytest
from rich.table import Table
from rich.text import Text

from trainer.console import bar
from trainer.console.errors import show_error, show_note
from trainer.console.main import main
from trainer.console.screen import Screen
from trainer.contract.errors import InvalidSettings
from trainer.contract.presets import save_preset
from trainer.contract.settings.config import validated
from trainer.contract.units import error_lines

HOSTILE = [
    "a\nError (disk_full): The disk is full.",
    "\x1b]0;title\x07\x1b[2J",
    "\x9b31m",  # the same in one character
    "back\rover",
    "a\u2028b",
    "\u202egnp.exe",  # shown from right to left
    "half \udcff",
]


def harmless(output, lines):
    """Whether it has just so many lines and nothing that a terminal obeys."""
    assert len(output.splitlines()) == lines, output
    assert all(line.isprintable() for line in output.splitlines()), ascii(output)
    output.encode()


@pytest.fixture
def written(monkeypatch, capsys):
    """Returns all that was printed, as a file takes it."""
    monkeypatch.setenv("COLUMNS", "300")
    said = []

    def read():
        said.append(capsys.readouterr().out)
        return "".join(said)

    return read


@pytest.mark.parametrize("name", ["<lora:x:0.6>", "ana:heart:.png", "10:on:20"])
def test_no_part_of_a_text_becomes_a_drawing(name, written):
    show_note(f"{name} is no image.", "Leave it out.", screen := Screen())
    screen.print(name, markup=False)
    assert written().count(name) == 2


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_can_neither_command_the_terminal_nor_pretend_to_be_a_line(name, written):
    screen = Screen()
    screen.print(f"Preview: {name}", markup=False)
    screen.print(Text(f"Preview: {name}".replace("\n", " ")))
    show_note(f"{name} is no image.", "Leave it out.", screen)
    harmless(written(), 3)
    table = Table(box=None, show_header=False)
    table.add_row(name, name)
    screen.print(table)
    harmless(written(), 4)


@pytest.mark.parametrize("name", HOSTILE)
def test_an_error_has_its_three_lines_whatever_the_value_seen_is(name, written):
    show_error(InvalidSettings(f"{name} is wrong.", hint=f"Not {name}."), Screen())
    harmless(written(), 3)
    harmless(error_lines("code", name, name), 3)


@pytest.mark.parametrize("name", [one for one in HOSTILE if "\udcff" not in one])
@pytest.mark.parametrize(
    "form", ["doctor {}", "--{}=1", "--preset {}", "{}", "train --resume {}", "convert {}x.ckpt -x"]
)
def test_what_is_typed_is_shown_escaped_in_every_refusal(form, name, written):
    assert main([word.replace("{}", name) for word in form.split()]) == 2
    harmless(written(), 3)


def test_letters_of_other_languages_and_emoji_stay(written):
    Screen().print("Mädchen 少女 👩\u200d🎨", markup=False)
    assert written() == "Mädchen 少女 👩\u200d🎨\n"


def test_a_preset_with_an_escape_in_its_sentence_is_listed(written, home):
    save_preset(home.presets, "mine", validated({}), "Good\x1b[2J.\nError (x): y")
    assert main(["presets", "--home", str(home.root)]) == 0
    (line,) = (line for line in written().splitlines() if line.startswith("mine"))
    assert "\\x1b[2J" in line
    assert "Error (x)" in line


def test_a_file_gets_a_line_at_the_beginning_after_a_minute_and_at_the_end(written, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(bar.time, "monotonic", lambda: clock[0])
    with bar.Bar(Screen()) as shown:
        for step in range(1, 301):
            clock[0] += 1.0
            shown.show("Training", step, 300, f"loss {1 / step:.2f}")
    lines = written().splitlines()
    assert lines[0].startswith("Training: 1/300, loss 1.00")
    assert lines[-1].startswith("Training: 300/300")
    assert 5 <= len(lines) <= 8
    assert "ETA 4 min" in lines[1]
    harmless(written(), len(lines))


def test_a_step_longer_than_a_minute_is_heard_of_every_minute(written, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(bar.time, "monotonic", lambda: clock[0])
    with bar.Bar(Screen()) as shown:
        shown.show("Training", 1, 10)
        for _ in range(4 * 180):
            clock[0] += 0.25
            shown.tick()
    assert len(written().splitlines()) == 1 + 3 + 1


def test_what_ends_early_says_how_far_it_came(written):
    with pytest.raises(OSError), bar.Bar(Screen()) as shown:
        for done in range(4):
            shown.show("Copying", done, 10)
        raise OSError
    assert written().splitlines()[-1].startswith("Copying: 3/10")


def test_no_terminal_command_gets_into_a_file_even_if_colours_are_asked_for(written, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    screen = Screen()
    with bar.Bar(screen) as shown:
        shown.show("Encoding images", 1, 2)
        screen.print("[bold red]warning[/]")
    assert "\x1b" not in written()
