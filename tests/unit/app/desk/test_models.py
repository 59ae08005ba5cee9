"""What the Train page says of the chosen base model."""

import headers
import hub_server
import pytest
from headers import sd2, sd15, sdxl
from huggingface_hub import constants
from PIL import Image

from app.desk.models import (
    asked_of_hub,
    base_models,
    line_of,
    model_of,
    preset_of,
    remedy_label,
    remedy_of,
)
from app.desk.presets import alike, preset_config, preset_for
from app.desk.state import state_of
from app.kit.text import TABLES
from trainer.contract.presets import FOLDER, list_presets, save_preset
from trainer.contract.settings.config import validated
from trainer.contract.units import size as in_words
from trainer.models.hub import fetch, look
from trainer.models.installed import HUB, Found
from trainer.projects.project import Project
from trainer.runs.folder import RunFolder

HUB_NAME = "ana/small-model"
POCKET = {"family": "auto", "resolution": 64, "preset": "pocket-style", "goal": "style"}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub with one model, and an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    file = headers.write(tmp_path / "there" / "ana.safetensors", {name: (1,) for name in sd15()})
    with hub_server.serve() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        server.add(HUB_NAME, {"ana.safetensors": file.read_bytes()})
        yield server


def model(tmp_path, tensors, name="ana", **options):
    return model_of(str(headers.write(tmp_path / f"{name}.safetensors", tensors, **options)))


def told(home, base_model, **changes):
    """What is wrong at which field, before there is a folder of images."""
    return shown(home, {"dataset.images": "", "model.base_model": str(base_model), **changes})["wrong"]


def shown(home, changes):
    """What the page shows of a project with this preset and these changes."""
    return state_of(home, Project.create(home, values={"preset": "pocket-style", **changes}), "en")


# the list


def test_the_list_offers_found_models_by_name_kind_size_and_program(home, tmp_path):
    ours, cached = model(tmp_path, sdxl(), "pony [v6]"), model(tmp_path, sd15())
    found = [Found(ours.path, "Forge", "pony [v6]", ours), Found(cached.path, HUB, HUB_NAME, cached)]
    offered = {one["name"]: f"{one['label']}: {one['about']}" for one in base_models(home, "en", found)}
    assert offered[str(ours.path)] == "pony [v6]: SDXL (Pony) · 263 MB · Forge"
    assert offered[HUB_NAME].startswith(f"{HUB_NAME}: SD 1.x · ")
    assert list(offered)[-1] == "pocket"
    assert len(offered) == len(base_models(home, "en", found))


def test_a_presets_model_that_is_not_here_was_not_used_before(home):
    RunFolder.create(home, validated({"model": {"base_model": "/models/mine.safetensors"}}))
    about = {one["name"]: one["about"] for one in base_models(home, "en", ())}
    assert about["/models/mine.safetensors"] == "used before"
    assert about["ponyDiffusionV6XL_v6StartWithThisOne"].startswith("not on this computer")


def test_a_found_model_that_a_preset_names_is_listed_once_with_what_it_is(home, tmp_path):
    ours = model(tmp_path, sd15())
    save_preset(home.presets, "mine", validated({"model": {"base_model": str(ours.path)}}), "")
    found = Found(ours.path, "Forge", "ana", ours)
    assert [one["label"] for one in base_models(home, "en", [found]) if one["name"] == str(ours.path)] == ["ana"]


# the line


@pytest.mark.parametrize("typed", ["{}", "  {} "])
def test_the_line_says_what_a_model_on_this_computer_is(tmp_path, typed):
    file = headers.write(tmp_path / "ana.safetensors", sdxl())
    typed = typed.format(file)
    assert "SDXL, predicts noise, 1024 px, fp16, 263 MB" in line_of(typed, model_of(typed), "en")


@pytest.mark.parametrize("typed", ["", None, "/no/such.safetensors", "no such model"])
def test_the_line_is_empty_where_there_is_no_model(typed):
    assert model_of(typed) is None
    assert line_of(typed, None, "en") == ""


def test_of_a_model_still_to_be_fetched_the_line_says_how_much_once_the_hub_was_asked(hub):
    assert "it will be downloaded" in line_of(HUB_NAME, model_of(HUB_NAME), "en")
    assert hub.requests == []
    asked = asked_of_hub(f" {HUB_NAME} ", "en")
    size = len(hub.repositories[HUB_NAME].files["ana.safetensors"])
    assert f"{in_words(size)} will be downloaded" in asked


def test_of_a_model_of_the_hub_that_is_here_the_hub_is_not_asked(hub):
    fetch(look(HUB_NAME), lambda _done, _total: None)
    hub.requests.clear()
    assert "In the Hugging Face cache: SD 1.x" in line_of(HUB_NAME, model_of(HUB_NAME), "en")
    assert asked_of_hub(HUB_NAME, "en") == ""
    assert hub.requests == []


@pytest.mark.usefixtures("hub")
def test_the_hubs_refusal_is_a_sentence_of_the_line(monkeypatch):
    assert "No model ana/other on the Hugging Face hub" in asked_of_hub("ana/other", "en")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in asked_of_hub(HUB_NAME, "en")


@pytest.mark.parametrize("typed", ["pocket", "/no/such.safetensors", "", None])
def test_of_a_path_the_hub_is_not_asked(hub, typed):
    assert asked_of_hub(typed, "en") == ""
    assert hub.requests == []


# problems


def test_what_is_wrong_with_the_model_stands_at_its_field_before_there_are_images(home, tmp_path):
    assert told(home, "pocket") == {}
    (problem,) = told(home, "/no/such.safetensors").values()
    assert problem.startswith("No base model at /no/such.safetensors. Give a .safetensors file")
    (tmp_path / "page.safetensors").write_text("<html>")
    assert "it is a web page" in told(home, tmp_path / "page.safetensors")["model.base_model"]


def test_a_setting_that_the_model_rules_out_is_marked(home, tmp_path):
    file = headers.write(tmp_path / "ana.safetensors", sdxl())
    assert set(told(home, file, **{"model.clip_skip": 2})) == {"model.clip_skip"}
    assert set(told(home, file, **{"model.family": "sd2"})) == {"model.base_model", "model.family"}


def test_with_images_the_plan_says_it_too(home, tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "ana.png")
    state = shown(home, {"dataset.images": str(tmp_path), "model.base_model": "/no/such.safetensors"})
    assert "No base model at /no/such.safetensors." in state["plan"]["problem"]
    wrong = state["wrong"]
    assert set(wrong) == {"model.base_model"}


# the button


def test_settings_that_suit_the_model_need_no_button(home, tmp_path):
    assert remedy_of(home, None, **POCKET) is None
    assert remedy_of(home, model_of("pocket"), **POCKET) is None
    sdxl_style = {"family": "sdxl", "resolution": 1024, "preset": "sdxl-style", "goal": "style"}
    assert remedy_of(home, model(tmp_path, sdxl()), **sdxl_style) is None


@pytest.mark.parametrize(
    ("name", "tensors", "goal", "preset"),
    [
        ("ana", sd15(), "style", "sd15-style"),
        ("ana", sd15(), "concept", "sd15-concept"),
        ("ana", sdxl(), "character", "sdxl-character"),
        ("ponyDiffusion", sdxl(), "style", "pony-style"),
        ("ponyDiffusion", sdxl(), "concept", "sdxl-concept"),
        ("illustriousXL", sdxl(), "character", "illustrious-character"),
        ("noobai-xl", sdxl(), "style", "noobai-style"),
        ("ana", sd2(), "character", "sd2-character"),
    ],
)
def test_a_model_of_another_family_brings_the_preset_for_it_and_for_the_goal(
    home, tmp_path, name, tensors, goal, preset
):
    made = model(tmp_path, tensors, name)
    assert remedy_of(home, made, **{**POCKET, "goal": goal}) == preset_of(home, made, goal) == preset


def test_settings_made_for_another_family_bring_the_models_preset(home, tmp_path):
    shown = {"family": "sd15", "resolution": 512, "preset": "sd15-style", "goal": "style"}
    assert remedy_of(home, model(tmp_path, sdxl()), **shown) == "sdxl-style"
    by_hand = {"family": "sd15", "resolution": 1024, "preset": "sdxl-style", "goal": "style"}
    assert remedy_of(home, model(tmp_path, sdxl()), **by_hand) is None  # the mark at the field tells


def test_only_the_resolution_is_put_right_where_the_rest_suits(home, tmp_path):
    shown = {"family": "sdxl", "resolution": 512, "preset": "sdxl-style", "goal": "style"}
    assert remedy_of(home, model(tmp_path, sdxl()), **shown) == 1024
    small = model(tmp_path, sd2(), "small", metadata={"modelspec.prediction_type": "epsilon"})
    assert remedy_of(home, small, family="sd2", resolution=768, preset="sd2-style", goal="style") == 512


@pytest.mark.parametrize("tongue", TABLES)
def test_the_button_says_what_it_does_in_every_language(home, tongue):
    assert "SDXL · " in remedy_label(home, "sdxl-style", tongue)
    assert "1024 px" in remedy_label(home, 1024, tongue)
    assert remedy_label(home, None, tongue) == ""


# presets that stay with the model


@pytest.mark.parametrize("preset", [preset.name for preset in list_presets(FOLDER)[0]])
@pytest.mark.parametrize("goal", ["style", "character", "concept"])
def test_another_goal_stays_with_the_family(home, preset, goal):
    present, other = (preset_config(home, name) for name in (preset, preset_for(home, goal, preset)))
    assert other.goal == goal
    assert other.model.family == present.model.family or present.model.family == "auto" or "sd2" in preset


def test_presets_for_the_same_models_are_told_from_others(home):
    assert alike(home, "sdxl-style", "pony-character")
    assert not alike(home, "sdxl-style", "sd15-style")
    assert not alike(home, "pocket-style", "sd15-style")
