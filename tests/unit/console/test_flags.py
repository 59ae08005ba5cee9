import re

import pytest

from trainer.console.flags import given_settings
from trainer.console.main import parser_of
from trainer.contract.errors import InvalidSettings
from trainer.contract.settings.config import SECTIONS, validated
from trainer.contract.wording import for_console

FIELDS = {f"{s}.{n}": field for s, section in SECTIONS.items() for n, field in section.model_fields.items()}
LISTS = ("prompts", "concepts", "further_resolutions")
SCHEMAS = {f"{s}.{n}": v for s, c in SECTIONS.items() for n, v in c.model_json_schema()["properties"].items()}


def given(*arguments):
    return given_settings(parser_of("train").flags(arguments))


def help_of_every_flag(monkeypatch):
    """Help text by setting."""
    monkeypatch.setenv("COLUMNS", "2000")  # nothing is wrapped
    _, *parts = parser_of("train").format_help().split("\n  --")
    return {part.split()[0]: part for part in parts}


@pytest.mark.parametrize("place", FIELDS)
def test_a_setting_has_a_flag_of_its_name(place):
    section, name = place.split(".")
    value = {"learning_rate": "0.001"}.get(name, "7")
    assert given(f"--{place}", value) == {section: {name: [value] if name in LISTS else value}}


def test_the_help_lists_every_setting_with_its_description(monkeypatch):
    text = help_of_every_flag(monkeypatch)
    assert [place for place, field in FIELDS.items() if field.description not in text.get(place, "")] == []


@pytest.mark.parametrize("place", [p for p, schema in SCHEMAS.items() if schema["type"] in ("integer", "number")])
def test_the_help_gives_a_numbers_range_exactly(place, monkeypatch):
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    found = re.findall(r"\b(from|above|to|below) ([\d.e+-]+)", help_of_every_flag(monkeypatch)[place])
    shown = {(word, float(number)) for word, number in found}
    assert shown == {(words[key], float(limit)) for key, limit in SCHEMAS[place].items() if key in words}


def test_the_help_names_the_choices_of_a_setting(monkeypatch):
    assert "model.precision auto|fp32|bf16|fp16" in help_of_every_flag(monkeypatch)["model.precision"]


def test_asking_for_help_ends_well(capsys):
    with pytest.raises(SystemExit) as caught:
        parser_of("train").flags(["--help"])
    assert caught.value.code == 0
    assert "--adapter.rank" in capsys.readouterr().out


def test_without_flags_no_setting_is_given():
    assert given("--preset", "pocket-style", "--check") == {}


def test_only_the_settings_named_are_given():
    assert given("--adapter.rank", "4", "--dataset.views=9") == {"adapter": {"rank": "4"}, "dataset": {"views": "9"}}


def test_the_short_flags_stand_for_their_settings():
    short = given("--images", "my images", "--name", "ana", "--base-model", "sd")
    long = given("--dataset.images", "my images", "--output.name", "ana", "--model.base_model", "sd")
    assert (
        short == long == {"dataset": {"images": "my images"}, "output": {"name": "ana"}, "model": {"base_model": "sd"}}
    )


@pytest.mark.parametrize(("word", "value"), [("true", True), ("false", False)])
def test_a_switch_takes_true_or_false(word, value):
    assert validated(given("--dataset.flip", word)).dataset.flip is value


def test_a_list_takes_several_texts():
    assert validated(given("--preview.prompts", "a cat", "ein Bär")).preview.prompts == ("a cat", "ein Bär")


def test_an_empty_list_can_be_given():
    assert given("--preview.prompts") == {"preview": {"prompts": []}}


@pytest.mark.parametrize(
    "arguments",
    [["--adapter.rnak", "4"], ["--adapter.rank"], ["stray"], ["--adapter.ran", "4"], ["--check=yes"]],
    ids=["unknown", "no value", "stray word", "shortened", "value too many"],
)
def test_a_wrong_flag_is_an_error_of_ours_that_names_it(arguments):
    with pytest.raises(InvalidSettings) as caught:
        parser_of("train").flags(arguments)
    assert arguments[0].split("=")[0] in for_console(caught.value.message)
    assert "--help" in for_console(caught.value.hint)


def test_a_negative_number_reaches_the_range_check():
    with pytest.raises(InvalidSettings, match=r"adapter\.rank = '-4'"):
        validated(given("--adapter.rank", "-4"))
