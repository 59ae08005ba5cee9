"""What is entered and chosen, as changes of the project's file."""

import pytest

from app.desk.changes import (
    entered,
    made,
    named_by_user,
    of_images,
    with_goal,
    with_model,
    with_preset,
    with_text,
)
from app.desk.state import Desk, state_of
from trainer.contract.errors import InvalidSettings, UnknownPreset
from trainer.contract.settings.config import validated
from trainer.projects.project import Project
from trainer.runs.folder import RunFolder


def project(home, preset="sdxl-style", **values):
    return Project.create(home, values={"preset": preset, **values})


def desk(home, **values):
    return Desk.of(home, project(home, **values))


def test_the_first_entry_makes_a_project(home):
    assert made(home, None, {"output.name": "ana"}).read().values == {"output.name": "ana"}


@pytest.mark.parametrize(
    ("tongue", "name"), [("en", "Project"), ("de", "Projekt"), ("ja", "プロジェクト"), ("zh-CN", "项目")]
)
def test_its_name_is_in_the_readers_language_until_the_lora_has_one(home, tongue, name):
    first, second = (made(home, None, {"output.name": "ana"}, tongue) for _ in range(2))
    assert [one.name for one in (first, second)] == [name, f"{name} 2"]
    assert named_by_user(second).name == "ana"


def test_a_value_of_the_presets_is_not_kept(home):
    shown = desk(home).values
    assert entered(desk(home), {"adapter.rank": shown["adapter.rank"], "dataset.views": 7}, None) == {
        "adapter.rank": None,
        "dataset.views": 7,
    }


def test_an_emptied_number_is_kept_as_it_is_and_named(home):
    found = project(home, **{"dataset.images": str(home.root)})
    made(home, found, entered(Desk.of(home, found), {"dataset.views": None}, None))
    state = state_of(home, found, "en")
    assert state["values"]["dataset.views"] == ""
    assert set(state["wrong"]) == {"dataset.views"}


@pytest.mark.parametrize("changes", [{"adapter.rank": 64}, {"adapter.alpha": 1.0}])
def test_the_learning_strength_is_kept(home, changes):
    before = desk(home, **{"adapter.rank": 32, "adapter.alpha": 16.0})
    held = 1e-4
    found = entered(before, changes, held)
    values = {**before.values, **changes, **{place: value for place, value in found.items() if value is not None}}
    strength = values["optimizer.learning_rate"] * values["adapter.alpha"] / values["adapter.rank"]
    assert strength == pytest.approx(held)
    assert "optimizer.learning_rate" not in entered(before, changes, None)


def test_another_preset_keeps_what_is_the_users_own(home):
    own = {"dataset.images": "/ana", "dataset.trigger_word": "ana", "output.name": "ana"}
    found = project(home, **own, **{"adapter.rank": 3})
    made(home, found, with_preset(Desk.of(home, found), "sd15-style"))
    assert found.read().values == {**own, "preset": "sd15-style"}


def test_a_goal_brings_the_preset_of_the_same_model(home):
    assert with_goal(desk(home), "character")["preset"] == "sdxl-character"
    assert with_goal(Desk.of(home, None), "character") == {"goal": "character"}


def test_a_model_brings_a_preset_and_the_toy_only_when_it_is_chosen(home):
    nothing = Desk.of(home, None)
    assert nothing.values["model.base_model"] == ""
    assert with_model(nothing, "pocket")["preset"] == "pocket-style"
    assert with_model(desk(home), "stabilityai/stable-diffusion-xl-base-1.0") == {"model.base_model": None}


def test_text_changes_what_was_edited_in_it_and_nothing_else_is_a_setting():
    before = 'preset = "sdxl-style"\n[adapter]\nrank = 3\n[output]\nname = "ana"'
    after = 'preset = "sd15-style"\n[adapter]\nalpha = 2\n[output]\nname = "ana"'
    assert with_text(after, before) == {"preset": "sd15-style", "adapter.rank": None, "adapter.alpha": 2}
    for wrong in ("[adapter]\nrnak = 3", "rank = [", "rank = 3"):
        with pytest.raises(InvalidSettings):
            with_text(wrong, before)


def test_text_leaves_what_another_tab_has_entered_since(home):
    found = project(home, **{"adapter.rank": 3})
    before = found.read().text()
    found.enter({"dataset.batch_size": 4})
    made(home, found, with_text(before.replace("rank = 3", "rank = 5"), before))
    assert found.read().values == {"preset": "sdxl-style", "adapter.rank": 5, "dataset.batch_size": 4}


def test_a_project_whose_preset_is_gone_says_so_and_is_not_trained_on_the_toy_model(home):
    found = project(home, preset="deleted since", **{"dataset.images": str(home.root)})
    state = state_of(home, found, "en")
    assert "No preset called" in state["plan"]["problem"]
    assert state["values"]["model.base_model"] == ""
    with pytest.raises(UnknownPreset):
        Desk.of(home, found).config()
    assert with_goal(Desk.of(home, found), "character") == {"goal": "character"}


def test_a_project_nobody_named_takes_the_loras_name_until_something_was_trained(home):
    unnamed = Project.create(home, values={"output.name": "ana"})
    assert named_by_user(unnamed).name == "ana"
    again = Project.create(home, values={"output.name": "ana"})
    assert named_by_user(again).name == "ana 2"
    trained = Project.create(home, values={"output.name": "ben"})
    RunFolder.create(home, validated({"project": trained.name}))
    assert named_by_user(trained).name == trained.name
    chosen = Project.create(home, "mine", {"output.name": "ana"})
    assert named_by_user(chosen).name == "mine"


def test_an_image_folder_leads_to_its_project(home):
    ana = project(home, **{"dataset.images": "/ana"})
    assert of_images(home, "/ana") == ana
    assert of_images(home, "/ben").read().values == {"dataset.images": "/ben"}


def test_own_images_do_not_get_the_trigger_word_of_the_toy_presets_cat(home, tmp_path):
    toy = project(home, "pocket-character")
    assert Desk.of(home, toy).values["dataset.trigger_word"] == "mimi"
    toy.enter({"dataset.images": str(tmp_path)})
    values = Desk.of(home, toy).values
    assert (values["dataset.trigger_word"], values["preview.prompts"]) == ("", "")
    toy.enter({"dataset.trigger_word": "mimi"})
    assert Desk.of(home, toy).values["dataset.trigger_word"] == "mimi"
