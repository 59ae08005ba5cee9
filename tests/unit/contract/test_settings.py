import math

import pytest
from pydantic import ValidationError

from trainer.contract.errors import InvalidSettings
from trainer.contract.settings.config import SECTIONS, TrainConfig, validated
from trainer.contract.wording import for_console


def refusal(section, **values):
    """The error that these values of a section give."""
    with pytest.raises(InvalidSettings) as caught:
        validated({section: values})
    return caught.value


# Each: setting, the smallest and largest value allowed, and the first values beyond them.
RANGES = [
    ("model.seed", 0, 2**31 - 1, -1, 2**31),
    ("dataset.views", 1, 10_000, 0, 10_001),
    ("dataset.batch_size", 1, 64, 0, 65),
    ("dataset.accumulation", 1, 128, 0, 129),
    ("dataset.resolution", 32, 2048, 31, 2049),
    ("dataset.caption_dropout", 0.0, 1.0, -1e-9, 1.000001),
    ("adapter.rank", 2, 256, 1, 257),
    ("adapter.alpha", 0.01, 256.0, 0.0099, 256.1),
    ("adapter.dropout", 0.0, 0.9, -0.1, 0.91),
    ("optimizer.learning_rate", 1e-12, 0.1, 0.0, 0.11),
    ("optimizer.beta2", 0.0, 0.999999, -0.1, 1.0),
    ("objective.min_snr_gamma", 0.0, 100.0, -1.0, 100.5),
    ("preview.guidance_scale", 1.0, 30.0, 0.99, 30.1),
    ("output.files", 1, 100, 0, 101),
]


@pytest.mark.parametrize(("place", "low", "high", "_under", "_over"), RANGES)
def test_both_ends_of_a_range_are_allowed(place, low, high, _under, _over):
    section, name = place.split(".")
    for value in (low, high):
        assert getattr(getattr(validated({section: {name: value}}), section), name) == value


@pytest.mark.parametrize(("place", "_low", "_high", "under", "over"), RANGES)
def test_a_value_beyond_its_range_is_refused_with_place_and_value(place, _low, _high, under, over):
    section, name = place.split(".")
    for value in (under, over):
        assert f"{place} = {value!r}" in str(refusal(section, **{name: value}))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan", "inf"])
@pytest.mark.parametrize("place", ["adapter.alpha", "optimizer.learning_rate", "objective.noise_offset"])
def test_a_number_that_is_not_finite_is_refused(place, value):
    section, name = place.split(".")
    assert place in refusal(section, **{name: value}).message


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        ("adapter.rank", "sixteen"),
        ("adapter.rank", 16.5),
        ("dataset.flip", "perhaps"),
        ("model.precision", "fp8"),
        ("preview.prompts", "one text, not a list"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_the_value_seen(place, wrong):
    section, name = place.split(".")
    assert f"{place} = {wrong!r}" in str(refusal(section, **{name: wrong}))


@pytest.mark.parametrize(
    ("section", "typo", "meant"),
    [
        ("adapter", "rnak", "adapter.rank"),
        ("optimizer", "learningrate", "optimizer.learning_rate"),
        ("dataset", "batchsize", "dataset.batch_size"),
    ],
)
def test_a_misspelt_setting_is_refused_with_the_right_spelling(section, typo, meant):
    error = refusal(section, **{typo: 3})
    assert f"{section}.{typo} (value seen: 3)" in str(error)
    assert for_console(error.hint) == f"Did you mean {meant}?"


def test_a_setting_outside_its_section_is_refused_with_its_section():
    with pytest.raises(InvalidSettings) as caught:
        validated({"learning_rate": 1e-4})
    assert "Did you mean optimizer.learning_rate?" in for_console(caught.value.hint)


def test_a_name_like_no_setting_is_refused_without_a_guess():
    with pytest.raises(InvalidSettings, match="zzzzzz") as caught:
        validated({"zzzzzz": 1})
    assert "Did you mean" not in caught.value.hint


def test_a_section_that_is_no_table_is_refused():
    with pytest.raises(InvalidSettings, match="dataset = 5"):
        validated({"dataset": 5})


def test_one_error_names_every_setting_at_fault():
    with pytest.raises(InvalidSettings) as caught:
        validated({"adapter": {"rank": 0, "alpha": 1000.0}, "model": {"sede": 1}})
    assert all(part in str(caught.value) for part in ("adapter.rank = 0", "adapter.alpha = 1000.0", "model.sede"))


@pytest.mark.parametrize(
    ("section", "values", "seen"),
    [
        ("dataset", {"min_total_views": 500, "max_total_views": 30}, ("500", "30")),
        ("dataset", {"further_resolutions": [512], "resolution": 512}, ("further_resolutions", "512")),
        ("dataset", {"concepts": [{"images": "x", "weight": 0}]}, ("concepts.0.weight", "0")),
        ("dataset", {"concepts": ["{x"]}, ("concepts.0", "{x")),
        ("objective", {"zero_terminal_snr": "on", "prediction": "epsilon"}, ("zero_terminal_snr", "epsilon")),
        ("objective", {"zero_terminal_snr": "on", "noise_offset": 0.05}, ("zero_terminal_snr", "0.05")),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_their_values(section, values, seen):
    message = refusal(section, **values).message
    assert all(part in message for part in (section, *seen))


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("dataset", {"min_total_views": 30, "max_total_views": 30}),
        ("objective", {"zero_terminal_snr": "on", "prediction": "v_prediction"}),
        ("objective", {"zero_terminal_snr": "off", "prediction": "epsilon", "noise_offset": 0.05}),
    ],
)
def test_settings_that_only_look_alike_contradictions_are_allowed(section, values):
    assert validated({section: values}).model_dump()[section].items() >= values.items()


@pytest.mark.parametrize(
    "name", ["a/b", "a\\b", "C:x", "what?", "*", 'say "x"', "<x>", "a|b", ".hidden", "..", "a\nb", "a\0b"]
)
def test_a_lora_name_that_is_no_plain_file_name_is_refused(name):
    error = refusal("output", name=name)
    assert "plain file name" in error.message
    assert repr(name) in error.message


@pytest.mark.parametrize("name", ["", "ana", "Ülküs Bälle", "v1.5-final", "猫の絵", "a'b & c(1)"])
def test_a_lora_name_in_any_script_is_allowed(name):
    assert validated({"output": {"name": name}}).output.name == name


def test_a_base_that_is_kept_at_every_timestep_teaches_nothing():
    error = refusal("objective", min_timestep=400, keep_from_timestep=400)
    assert "and nothing learned" in str(error)
    assert set(error.places) == {"objective.min_timestep", "objective.keep_from_timestep"}
    validated({"objective": {"min_timestep": 399, "keep_from_timestep": 400}})


def test_a_range_of_timesteps_that_holds_none_is_refused():
    error = refusal("objective", min_timestep=600, max_timestep=600)
    assert "objective.min_timestep (600) is not below objective.max_timestep (600)." in str(error)
    assert set(error.places) == {"objective.min_timestep", "objective.max_timestep"}


@pytest.mark.parametrize("name", ["CON", "nul", "Com1.final", "lpt9", "aux .v2"])
def test_a_lora_name_that_windows_takes_for_a_device_is_refused(name):
    assert "device on Windows" in refusal("output", name=name).message


@pytest.mark.parametrize("name", ["console", "com", "com10", "null", "my con"])
def test_a_lora_name_that_only_contains_a_devices_is_allowed(name):
    assert validated({"output": {"name": name}}).output.name == name


def test_a_lora_name_too_long_for_a_file_system_is_refused_though_it_has_few_letters():
    assert "240 bytes" in refusal("output", name="猫" * 80).message


@pytest.mark.parametrize("letter", ["x", "ä", "猫", "🙂"])
def test_the_longest_allowed_name_leaves_room_for_step_ending_and_temporary_name(letter, tmp_path):
    allowed = [n for n in range(1, 81) if _is_allowed(letter * n)]
    longest = letter * max(allowed)
    (tmp_path / f".{longest}-0001000.safetensors.abcdefgh.part").touch()
    (tmp_path / f"{longest}-20261121-231500-999").mkdir()


def _is_allowed(name):
    try:
        validated({"output": {"name": name}})
    except InvalidSettings:
        return False
    return True


def test_settings_cannot_be_changed_afterwards():
    config = TrainConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.adapter.rank = 4
    with pytest.raises(ValidationError, match="frozen"):
        config.goal = "concept"


@pytest.mark.parametrize(
    ("place", "text", "value"),
    [
        ("adapter.rank", "32", 32),
        ("optimizer.learning_rate", "1e-4", 1e-4),
        ("dataset.flip", "true", True),
        ("dataset.flip", "false", False),
    ],
)
def test_text_from_a_command_line_becomes_the_settings_own_type(place, text, value):
    section, name = place.split(".")
    found = getattr(getattr(validated({section: {name: text}}), section), name)
    assert (found, type(found)) == (value, type(value))


def test_every_setting_says_what_it_is_for():
    fields = {f"{s}.{n}": field for s, section in SECTIONS.items() for n, field in section.model_fields.items()}
    assert [place for place, field in fields.items() if not (field.description or "").endswith((".", ")."))] == []
