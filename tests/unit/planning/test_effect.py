"""A setting that changes nothing is said before the start, and only one that somebody set."""

import pytest

from trainer.contract.schema import all_settings
from trainer.contract.settings.config import validated
from trainer.contract.wording import for_console
from trainer.planning.effect import prompt_options, without_effect

DEPENDENT = {info.place: info.when for info in all_settings() if info.when}
ON = {
    "adapter.text_encoder": True,
    "adapter.text_encoder_2": True,
    "dataset.shuffle_tags": True,
    "dataset.tag_dropout": 0.1,
    "dataset.caption_dropout": 0.1,
    "dataset.prior_preservation": True,
}


def config(**on):
    values = {"dataset": {"trigger_word": "ana"}}
    for place, value in on.items():
        section, name = place.split(".")
        values.setdefault(section, {})[name] = value
    return validated(values)


@pytest.mark.parametrize("place", DEPENDENT)
def test_without_what_it_belongs_to_it_is_named(place):
    (problem,) = without_effect(config(), [place, "adapter.rank"])
    said = for_console(f"{problem.message} {problem.hint}")
    assert f"--{place}" in said
    assert "has no effect here" in said
    assert all(needed in said for needed in DEPENDENT[place] if needed in ON)


@pytest.mark.parametrize(
    ("place", "needed"), [(place, needed) for place, when in DEPENDENT.items() for needed in when if needed in ON]
)
def test_with_any_of_them_it_is_not(place, needed):
    assert without_effect(config(**{needed: ON[needed]}), [place]) == []


def test_class_images_of_ones_own_count_as_prior_preservation():
    own = validated({"dataset": {"concepts": [{"images": "reg", "class_images": True}]}})
    assert without_effect(own, ["dataset.class_share"]) == []
    assert len(without_effect(own, ["dataset.class_images"])) == 1


def test_what_nobody_set_is_not_spoken_of():
    assert without_effect(config(), []) == []


def test_what_they_depend_on_is_there():
    known = {info.place for info in all_settings()} | {"dataset.class_folders"}
    assert {needed for when in DEPENDENT.values() for needed in when} <= known


def test_options_of_sd_scripts_in_preview_prompts_are_said_to_be_words():
    prompts = ["ana, beach --n lowres --w 512 --d 42", "ana --d 1", "a--n b, -- n, --night"]
    (problem,) = prompt_options(validated({"preview": {"prompts": prompts}}))
    assert for_console(problem.message) == "--n, --w, --d in preview.prompts have no effect: they are read as words."
    assert "preview.negative_prompt" in for_console(problem.hint)
    assert prompt_options(validated({"preview": {"prompts": ["ana, beach", "--"]}})) == []
