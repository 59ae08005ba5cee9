"""The list of all settings: what its rows say, its search, its steps."""

import gradio as gr
import pytest

from app.kit.rows import SETTINGS, answers, rows, stands_for, step_of
from app.kit.text import ENGLISH
from trainer.contract.vocabulary import ELSEWHERE, Instead

REQUESTS = {tongue: gr.Request(headers={"accept-language": tongue}) for tongue in ("en", "de")}


def find(wanted, tongue="en"):
    (search,) = [one for one in answers() if one.__name__ == "settings_search"]
    return search({"wanted": wanted}, REQUESTS[tongue])


@pytest.mark.parametrize(
    ("wanted", "tongue", "place"),
    [
        ("network dim", "en", "adapter.rank"),
        ("te lr", "en", "optimizer.text_learning_rate"),
        ("views", "en", "dataset.views"),
        ("Lernrate", "de", "optimizer.learning_rate"),
    ],
)
def test_a_setting_is_found_by_anyones_word_and_the_readers(wanted, tongue, place):
    assert find(wanted, tongue)["places"][0] == place


def test_what_has_no_setting_has_a_sentence_in_the_readers_language():
    assert find("xformers")["instead"] == ["xformers: Not needed: PyTorch's own attention is used."]
    assert "Nicht nötig" in find("xformers", "de")["instead"][0]
    assert find("AdamW8bit")["instead"][0].startswith("adamw8bit: Not here yet")


def test_what_is_not_there_has_the_nearest_words():
    found = find("prodgy")
    assert (found["places"], found["instead"], found["nearest"][0]) == ([], [], "prodigy")


def test_a_question_that_is_none_is_refused():
    (search,) = [one for one in answers() if one.__name__ == "settings_search"]
    assert "error" in search({"wanted": ["a"]}, REQUESTS["en"])


def test_the_catalogue_says_what_the_vocabulary_says():
    assert {f"elsewhere.{words.partition(',')[0]}": text for words, text in ELSEWHERE} == {
        key: text for key, text in ENGLISH.items() if key.startswith("elsewhere.")
    }
    assert stands_for(Instead("xformers", "", "sdpa"), "en").startswith("sdpa: Not needed")


def test_rows_carry_the_name_at_kohya_where_it_is_another():
    said = {one["place"]: one["kohya"] for one in rows("en")}
    assert said["adapter.rank"] == "network dim"
    assert said["dataset.resolution"] == "resolution, max bucket reso"
    assert said["objective.noise_offset"] == ""


@pytest.mark.parametrize(
    ("place", "step"),
    [
        ("optimizer.learning_rate", 0),
        ("optimizer.text_learning_rate", 0),
        ("optimizer.warmup", 0.05),
        ("dataset.resolution", 64),
        ("preview.width", 64),
        ("dataset.views", 1),
        ("preview.guidance_scale", 0.5),
    ],
)
def test_arrow_keys_change_a_setting_sensibly(place, step):
    assert step_of(SETTINGS[place]) == step
