import pytest

from app.kit.form import config_of, control, shown_values
from app.kit.rows import SETTINGS, help_of, row
from trainer.contract.errors import InvalidSettings
from trainer.contract.presets import FOLDER, load_preset, overlay
from trainer.contract.settings.config import SECTIONS, validated

PRESETS = sorted(path.stem for path in FOLDER.glob("*.toml"))


def test_every_setting_has_a_control():
    assert set(SETTINGS) == {f"{s}.{name}" for s, fields in SECTIONS.items() for name in fields.model_fields}


@pytest.mark.parametrize("place", SETTINGS)
def test_a_setting_has_name_help_and_range_in_the_list(place):
    made = row(SETTINGS[place], "en")
    assert made["label"]
    assert SETTINGS[place].range_text in made["help"]


@pytest.mark.parametrize("place", ["adapter.rank", "optimizer.learning_rate", "output.name"])
def test_a_control_has_name_and_help(place):
    made = control(place)
    assert made.label
    assert help_of(SETTINGS[place]) == made.info
    assert SETTINGS[place].range_text in made.info
    assert "kohya" not in made.info  # which stands beside the name


@pytest.mark.parametrize("preset", PRESETS)
def test_what_the_controls_show_is_what_is_trained(preset):
    config, _ = overlay({"preset": load_preset(preset, FOLDER).values})
    assert config_of(shown_values(config), config.preset, config.goal) == config


def test_several_texts_stand_one_per_line():
    values = shown_values(validated({"preview": {"prompts": ["a cat", "ein Bär"]}}))
    assert values["preview.prompts"] == "a cat\nein Bär"
    values["preview.prompts"] = "  a cat \n\n ein Bär\n"
    assert config_of(values, "", "style").preview.prompts == ("a cat", "ein Bär")


def test_an_emptied_number_is_named():
    values = {**shown_values(validated({})), "dataset.views": None}
    with pytest.raises(InvalidSettings, match=r"dataset\.views"):
        config_of(values, "", "style")


def test_further_folders_stand_one_per_line_alone_or_with_their_rules():
    ben = {"images": "/ben", "weight": 2.0, "flip": True}
    values = shown_values(validated({"dataset": {"concepts": ["/ana", ben], "further_resolutions": [384, 256]}}))
    assert values["dataset.concepts"] == '/ana\n{"images": "/ben", "weight": 2.0, "flip": true}'
    assert values["dataset.further_resolutions"] == "384\n256"
    dataset = config_of(values, "", "style").dataset
    assert [concept.model_dump(exclude_defaults=True) for concept in dataset.concepts] == [{"images": "/ana"}, ben]
    assert dataset.further_resolutions == (384, 256)
