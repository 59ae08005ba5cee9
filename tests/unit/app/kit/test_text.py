import re
from string import Formatter

import gradio as gr
import pytest

from app.kit.text import ENGLISH, TABLES, label, language, say

OTHERS = sorted(set(TABLES) - {"en"})
# The same in another language because they are names, or because that language says it so
SAME = {
    "setting.output.name": {"de"},
    "setting.adapter.alpha": {"de"},
    "setting.model.vae": {"de", "ja", "zh-CN"},
    "setting.optimizer.beta1": {"de"},
    "setting.optimizer.beta2": {"de"},
    "nav.start": {"de"},
    "nav.live": {"de"},
    "live.pause": {"de"},
    "compare.prompt": {"de"},
}


def request(accepted):
    """A browser's request with these languages."""
    return gr.Request(headers={"accept-language": accepted})


def test_the_promised_languages_are_there():
    assert {"en", "de", "zh-CN", "ja"} <= set(TABLES)


@pytest.mark.parametrize("language", OTHERS)
def test_a_language_has_every_key_and_no_other(language):
    assert TABLES[language].keys() == ENGLISH.keys()


@pytest.mark.parametrize("language", OTHERS)
def test_a_language_is_not_english(language):
    same = {key for key, text in TABLES[language].items() if re.sub(r"\W", "", text) == re.sub(r"\W", "", ENGLISH[key])}
    assert same == {key for key, languages in SAME.items() if language in languages}


def places(text):
    """What is filled in there, by name."""
    return {name for _, name, _, _ in Formatter().parse(text) if name}


@pytest.mark.parametrize("language", OTHERS)
def test_a_sentence_has_the_same_places_in_every_language(language):
    assert [key for key in ENGLISH if places(ENGLISH[key]) != places(TABLES[language][key])] == []


@pytest.mark.parametrize(
    ("accepted", "spoken"),
    [
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("zh-TW,zh;q=0.9", "zh-CN"),
        ("ja", "ja"),
        ("fr-FR,fr;q=0.9,de;q=0.5", "de"),
        ("xx", "en"),
        ("", "en"),
        ("en-GB,de;q=0.5", "en"),
    ],
)
def test_the_browsers_first_language_that_we_speak_is_taken(accepted, spoken):
    assert language(request(accepted)) == spoken


def test_without_a_browser_it_is_english():
    assert language(None) == "en"


def test_a_sentence_is_filled_in():
    assert say("de", "plan.time", duration="3 min") == "etwa 3 min"
    assert say("xx", "plan.time", duration="3 min") == "about 3 min"


def test_a_label_that_has_no_text_is_a_mistake():
    with pytest.raises(KeyError):
        label("no.such.key")
