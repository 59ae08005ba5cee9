"""The page never shows a flag, a setting's dotted path or an error code: its readers know labels and buttons."""

import re

import pytest

from app.help import contents_table, settings_table, text_of
from app.kit.cards import problem_card
from app.kit.failures import CODES, FAILURES, table
from app.kit.rows import help_of
from app.kit.text import TABLES
from app.kit.wording import on_page, setting_name
from trainer.contract.errors import TrainerError
from trainer.contract.home import Home
from trainer.contract.schema import all_settings
from trainer.contract.toml import RENAMED
from trainer.contract.wording import action, named, setting
from trainer.doctor.cases import CASES

PLACES = [info.place for info in all_settings()]
FLAG = r"(?<![\w-])--[a-z]\w*"
PATH = rf"(?<![\w.])(?:{'|'.join(re.escape(place) for place in [*PLACES, *RENAMED])})(?!\.?\w)"
CODE = rf"(?<![\w#])(?:{'|'.join(sorted(code for code in CODES if '_' in code))})(?!\w)"  # other codes are plain words
FORBIDDEN = re.compile("|".join((FLAG, PATH, CODE)))


def visible(html):
    """What a reader sees of some HTML."""
    return re.sub(r"<[^>]*>", " ", html)


@pytest.mark.parametrize("tongue", TABLES)
def test_no_text_of_the_catalogue_names_one(tongue):
    assert {key: text for key, text in TABLES[tongue].items() if FORBIDDEN.search(text)} == {}


@pytest.mark.parametrize("tongue", TABLES)
def test_no_help_of_a_setting_names_one(tongue):
    helps = {info.place: on_page(help_of(info), tongue) for info in all_settings()}
    assert {place: text for place, text in helps.items() if FORBIDDEN.search(text)} == {}


def test_no_finding_of_the_doctor_names_one():
    texts = [on_page(text, "en") for case in CASES.values() for text in (case.title, case.why, case.hint)]
    assert [text for text in texts if FORBIDDEN.search(text)] == []


@pytest.mark.parametrize("tongue", TABLES)
def test_no_card_of_a_failure_names_one(tongue):
    shown = []
    for one in FAILURES:
        error = TrainerError(f"{one['message']} {one['why']}", one["hint"])
        error.code = one["code"]
        shown.append(visible(problem_card(error, tongue)))
    assert [text for text in shown if FORBIDDEN.search(text)] == []


@pytest.mark.parametrize("tongue", TABLES)
def test_no_table_of_help_names_one(tongue, tmp_path):
    shown = visible(settings_table(tongue) + table(tongue) + contents_table(Home(tmp_path), tongue))
    assert FORBIDDEN.findall(shown) == []


@pytest.mark.parametrize("part", ["getting-started", "troubleshooting", "security"])
def test_no_text_of_help_but_the_consoles_names_a_settings_path(part):
    text = re.sub(r"(?s)```.*?```", "", text_of(part))
    typed = re.sub(r"`[^`]*`", lambda code: "" if re.search(r"\s|^`--", code[0]) else code[0], text)  # on the console
    assert re.findall(PATH, typed) == []


def test_what_is_forbidden_is_found():
    for text in ("Set --model.precision fp32.", "See adapter.rank.", "Error (no_images)", "use --home DIR"):
        assert FORBIDDEN.search(text)
    assert not FORBIDDEN.search("A file ana.safetensors -- or images.zip")


@pytest.mark.parametrize("tongue", TABLES)
def test_every_mark_becomes_the_pages_words(tongue):
    text = f"{setting('model.precision', 'fp32')} {named('adapter.rank')} {action('resume', 'ana')}"
    shown = on_page(text, tongue)
    assert not re.search("[⟦⟧]", shown)
    assert f"“{setting_name('model.precision', tongue)}: fp32”" in shown
    assert f"“{setting_name('adapter.rank', tongue)}”" in shown
    assert TABLES[tongue]["action.resume"] in shown
