import inspect
import re
from types import SimpleNamespace
from urllib.parse import parse_qsl, urlsplit

import gradio as gr
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from app.api import register
from app.api import state_of as status_of
from app.desk import plan
from app.desk.begin import continuation, next_name, start_run
from app.desk.changes import taken_up
from app.desk.element import answers
from app.desk.images import dataset_link, images_html
from app.desk.models import base_models
from app.desk.presets import intent_of, preset_config, preset_for, preset_titles
from app.desk.state import Desk, state_of
from app.kit.form import api_name, shown_values, typed
from app.kit.rows import SETTINGS
from app.live.monitor import Watch, Watches
from app.settings.preset_box import own_list
from trainer.console.main import main
from trainer.contract.errors import InvalidSettings
from trainer.contract.events import EventLog, RunFailed, Step
from trainer.contract.home import Home
from trainer.contract.presets import FOLDER, list_presets, save_preset
from trainer.contract.settings.config import validated
from trainer.dataset.errors import FolderMissing
from trainer.dataset.overlay import Entry, change, overlay_file
from trainer.planning.memory import GIB, MemoryPlan, Savings
from trainer.projects.project import Project
from trainer.runs import process
from trainer.runs.errors import RunMissing
from trainer.runs.folder import RunFolder
from trainer.runs.queue import Queue

ENGLISH = gr.Request(headers={"accept-language": "en"})
PRESETS = [preset.name for preset in list_presets(FOLDER)[0]]


@pytest.fixture
def folder(tmp_path):
    """Three images, two captions."""
    made = tmp_path / "Bilder ä & <b>"
    made.mkdir()
    for number in range(3):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(made / f"{number}.png")
    for number in range(2):
        (made / f"{number}.txt").write_text(f"a <i>cat</i>, number {number}")
    return made


def named(home, preset, **changes):
    """What the page shows, by place, when this preset was chosen and some settings, by API name, were changed."""
    places = {api_name(place): place for place in SETTINGS}
    return shown_values(preset_config(home, preset)) | {places[name]: value for name, value in changes.items()}


def read(home, preset, values):
    """The settings of a run."""
    return plan.read(home, values, preset, preset_config(home, preset).goal)


def sentence(home, config, tongue):
    """The plan as one text."""
    items, _ = plan.found_in(config.dataset)
    return " · ".join(plan.parts(home, config, items, tongue))


def planned(home, preset, values):
    """The plan or the problem as text, and what is wrong with which setting."""
    changed = {place: typed(SETTINGS[place], value) for place, value in values.items()}
    project = Project.create(home, values={**changed, "preset": preset})
    state = state_of(home, project, "en")
    said = state["plan"]
    return " ".join([said["problem"], said["first"], said["second"], *said["notes"]]), state["wrong"]


# images


def test_a_folder_is_shown_with_counts_and_problems_and_everything_escaped(home, folder):
    html = images_html(home, folder, "", "en")
    assert "3 images, 2 with captions" in html
    assert html.count("<img") == 3
    assert "1 of 3 images have no caption" in html
    assert "<i>cat" not in html
    assert str(folder) not in html  # only addresses of thumbnails


def test_files_that_are_not_read_are_counted_beneath_the_images(home, folder):
    for name in ("a.nef", "b.nef", "c.psd"):
        (folder / name).touch()
    assert "3 other files are not read: 2 .nef, 1 .psd." in images_html(home, folder, "", "en")


def test_the_data_set_is_looked_at_as_it_will_be_trained(home, folder):
    values = named(home, "sd15-character", dataset_images=str(folder), dataset_trigger_word="ana & co")
    address = urlsplit(dataset_link(values | {"dataset.resolution": 640}, "sd15-character"))
    assert (address.path, dict(parse_qsl(address.query))) == (
        "/dataset",
        {"images": str(folder), "preset": "sd15-character", "trigger": "ana & co", "resolution": "640"},
    )


@pytest.mark.parametrize("images", ["", "  ", None, "/no/such/folder"])
def test_without_a_folder_no_link_leads_to_it(home, images):
    assert dataset_link(named(home, "pocket-style", dataset_images=images), "pocket-style") == ""


def test_a_wrong_folder_is_named_with_what_to_do(home, tmp_path):
    html = images_html(home, tmp_path / "no such", "", "en")
    assert 'role="alert"' in html
    assert "no such does not exist" in html


# the plan


def test_the_plan_says_steps_batch_and_files(home, folder):
    config = read(home, "pocket-style", named(home, "pocket-style", dataset_images=str(folder), dataset_views=8))
    told = sentence(home, config, "en")
    assert told.startswith("3 images × 8 views = 3 steps at batch 8")
    assert "writes 2 files" in told


@pytest.mark.parametrize(
    ("tongue", "said"),
    [
        ("en", "3 × 8 views would be 24: “Minimum total views” of 100 makes it 33.33 each"),
        ("de", "„Mindestzahl aller Ansichten“ von 100 macht daraus je 33.33"),
    ],
)
def test_the_plan_says_why_views_are_more_than_asked_for(home, folder, tongue, said):
    inputs = named(home, "pocket-style", dataset_images=str(folder), dataset_views=8, dataset_min_total_views=100)
    assert said in sentence(home, read(home, "pocket-style", inputs), tongue)


def test_what_nothing_would_call_up_is_said_before_train(home, folder):
    for file in folder.glob("*.txt"):
        file.unlink()
    for word, said in (("", True), ("mimi", False)):
        values = {"preset": "pocket-style", "dataset.images": str(folder), "dataset.trigger_word": word}
        made = state_of(home, Project.create(home, values=values), "en")
        assert ("3 images have no caption" in made["plan"]["uncaptioned"]) == said
        hint = images_html(home, folder, word, "en")
        assert ("caption them: “Automatic captions” on the Dataset page" in hint) == said
        assert ("trained on the trigger word alone" in hint) != said


def test_a_setting_that_changes_nothing_is_said_before_train(home, folder):
    for dropout, said in ((0.0, True), (0.1, False)):
        changes = {"dataset_keep_tags": 3, "dataset_tag_dropout": dropout, "dataset_images": str(folder)}
        config = read(home, "pocket-style", named(home, "pocket-style", **changes))
        said_of = " ".join(plan.cautions(home, config, plan.found_in(config.dataset)[0], "en"))
        assert ("Keep first tags: 3” has no effect" in said_of) == said


def test_the_plan_knows_the_time_from_an_earlier_run(home, folder):
    inputs = named(home, "pocket-style", dataset_images=str(folder), dataset_views=66, preview_every=99)
    config = read(home, "pocket-style", inputs)
    assert "known after the first steps" in sentence(home, config, "en")
    run = RunFolder.create(home, config)
    with EventLog(run.events_file) as log:
        for step in (1, 2, 3):
            log.write(Step(step=step, epoch=0, loss=0.1, lr=1e-3, grad_norm=1.0, seconds=60.0, memory_gib=1.5))
    told = sentence(home, config, "en")
    # 3 images x 66 views at batch 8: 24.75 steps of a minute, and 18 previews of 16 passes
    assert "about 37 min" in told
    assert "needs 1.5 GiB" in told


@pytest.mark.parametrize(
    "free, savings, words",
    [
        (24, Savings("none", 2, 1), ["about 5.0 of 24.0 GiB"]),
        (
            6,
            Savings("blocks", 1, 2),
            ["gradient checkpointing (transformer blocks)", "batch 1 with gradient accumulation"],
        ),
        (
            4,
            Savings("full", 1, 2, "4bit"),
            ["needs about 5.0 GiB, but only 4.0 GiB are free", "base model quantized to 4-bit"],
        ),
        (6, Savings("none", 2, 1, "4bit", stream=True), ["blocks offloaded to system RAM (+1.4 GiB)"]),
    ],
)
def test_the_plan_says_what_saves_memory(monkeypatch, tmp_path, free, savings, words):
    besides = round(1.4 * GIB) if savings.stream else 0
    made = MemoryPlan(savings, {"base": 3 * GIB, "activations": 2 * GIB}, free * GIB, besides)
    monkeypatch.setattr(plan, "foreseen", lambda _config: made)
    config = validated({"dataset": {"images": "assets/demo/style/train", "batch_size": 2}})
    told = sentence(Home(tmp_path), config, "en")
    assert all(word in told for word in words)
    assert ("system RAM" in told) == savings.stream


def test_where_nothing_fits_the_plan_has_a_button_for_the_size_that_does(home, monkeypatch):
    made = MemoryPlan(Savings("full", 1, 2, "4bit"), {"base": 5 * GIB}, 4 * GIB, processes=2, smaller=448)
    monkeypatch.setattr(plan, "foreseen", lambda _config: made)
    config = validated({"dataset": {"images": "assets/demo/style/train"}})
    told = sentence(home, config, "en")
    assert "in each of 2 processes" in told
    assert "close other programs" not in told
    project = Project.create(home, values={"preset": "sd15-style"})
    assert state_of(home, project, "en")["smaller"] == "Train at 448 px, which fits into memory"
    choose = {one.__name__: one for one in answers(home)}["desk_choose"]
    made = choose({"project": project.name, "what": "smaller"}, ENGLISH)
    assert made["values"]["dataset.resolution"] == 448
    assert project.read().values["dataset.resolution"] == 448


def test_where_nothing_fits_at_any_size_the_plan_says_what_else_to_do(home, monkeypatch):
    made = MemoryPlan(Savings("full", 1, 2, "4bit"), {"base": 5 * GIB}, 4 * GIB)
    monkeypatch.setattr(plan, "foreseen", lambda _config: made)
    assert "close other programs" in sentence(home, validated({"dataset": {"images": "assets/demo/style/train"}}), "en")
    assert plan.smaller(named(home, "sd15-style"), "sd15-style", "style") is None


def test_captions_edited_on_the_dataset_page_are_trained(home, folder):
    inputs = named(home, "pocket-style", dataset_images=str(folder))
    assert read(home, "pocket-style", inputs).dataset.captions == ""
    change(home, folder, {"2.png": Entry("a dog")})
    assert read(home, "pocket-style", inputs).dataset.captions == str(overlay_file(home, folder))


def test_a_missing_folder_is_an_error(home, tmp_path):
    config = read(home, "pocket-style", named(home, "pocket-style", dataset_images=str(tmp_path / "no")))
    with pytest.raises(FolderMissing):
        sentence(home, config, "en")


# what differs, what is wrong


@pytest.mark.parametrize("preset", PRESETS)
def test_a_fresh_preset_differs_in_nothing(home, preset):
    config = preset_config(home, preset)
    assert plan.differing(shown_values(config), config) == {}


def test_a_changed_setting_is_marked_with_the_presets_value(home):
    config = preset_config(home, "sd15-style")
    values = shown_values(config) | {"adapter.rank": 64, "preview.negative_prompt": "  ", "dataset.flip": False}
    assert plan.differing(values, config) == {"adapter.rank": 32, "dataset.flip": True}


def test_what_contradicts_stands_at_every_field_concerned(home, folder):
    inputs = named(home, "pocket-style", dataset_images=str(folder), objective_min_timestep=900,
                   objective_max_timestep=300)  # fmt: skip
    told, wrong = planned(home, "pocket-style", inputs)
    assert set(wrong) == {"objective.min_timestep", "objective.max_timestep"}
    assert "900" in told


@pytest.mark.parametrize("name, value", [("adapter_rank", 999), ("dataset_views", 0), ("output_name", "a/b")])
def test_a_value_out_of_range_is_named_at_its_field(home, folder, name, value):
    inputs = named(home, "pocket-style", dataset_images=str(folder), **{name: value})
    _, wrong = planned(home, "pocket-style", inputs)
    assert [api_name(place) for place in wrong] == [name]


# presets


@pytest.mark.parametrize("goal", ["style", "character", "concept"])
@pytest.mark.parametrize("present", PRESETS)
def test_a_goal_has_a_preset_of_the_same_model_if_there_is_one(home, goal, present):
    chosen = preset_config(home, preset_for(home, goal, present))
    assert chosen.goal == goal
    if goal != "concept":
        assert chosen.model.base_model == preset_config(home, present).model.base_model


def test_the_example_is_ready_to_train(home):
    choose = {one.__name__: one for one in answers(home)}["desk_choose"]
    made = choose({"what": "example"}, ENGLISH)
    assert (made["project"], made["plan"]["problem"]) == ("example", "")
    assert made["plan"]["first"].startswith("24 images")


def test_own_presets_come_first_and_are_marked(home):
    save_preset(home.presets, "mine & co", validated({"adapter": {"rank": 4}}), "for <i>me</i>")
    assert preset_titles(home, "en")[0] == ("mine & co", "mine & co")
    assert intent_of(home, "mine & co", "en") == "for <i>me</i> (your own)"
    listed = own_list(home, "en")
    assert "mine%20%26%20co.toml" in listed
    assert ">mine &amp; co<" in listed
    (home.presets / "broken.toml").write_text("rank = [")
    assert "broken.toml" in own_list(home, "en")


def test_the_base_models_are_the_built_in_one_the_presets_and_those_used_before(home):
    RunFolder.create(home, validated({"model": {"base_model": "/models/mine"}}))
    names = [one["name"] for one in base_models(home, "en", ())]
    assert names[-1] == "pocket"
    assert "/models/mine" in names
    assert len(names) == len(set(names))


# from a result back to the form


def lora(path, rank=8, alpha=4.0):
    """A LoRA file of one layer of pocket, as far as its header goes."""
    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    shapes = {"lora_down.weight": (rank, 192), "lora_up.weight": (192, rank)}
    tensors = {f"{layer}.{leaf}": np.zeros(shape, "f") for leaf, shape in shapes.items()}
    save_file({**tensors, f"{layer}.alpha": np.array(alpha, "f")}, path)
    return path


def test_a_run_goes_on_with_its_own_settings_from_the_chosen_file_under_a_new_name(home, folder):
    values = named(home, "pocket-style", dataset_images=str(folder), adapter_rank=8, adapter_alpha=4.0,
                   output_name="Bär & 7")  # fmt: skip
    run = RunFolder.create(home, read(home, "pocket-style", values))
    file = lora(run.path / "Bär & 7-000002.safetensors")
    shown = Desk.of(home, taken_up(home, run, file.name)).values
    inputs = {api_name(place): value for place, value in shown.items()}
    changed = {name for name, value in inputs.items() if value != values[name.replace("_", ".", 1)]}
    assert changed == {"adapter_start_from", "output_name"}
    assert (inputs["adapter_start_from"], inputs["output_name"]) == (str(file.resolve()), "Bär & 8")
    told, wrong = planned(home, "pocket-style", shown)
    assert wrong == {}
    assert "Continues from Bär &amp; 7-000002.safetensors." in told
    fresh, layers = map(int, re.search(r"(\d+) of (\d+) trained layers are not in it and start fresh\.", told).groups())
    assert fresh == layers - 1


def test_the_plan_marks_rank_and_alpha_that_are_not_the_files(home, folder, tmp_path):
    file = lora(tmp_path / "small.safetensors", rank=4, alpha=1.0)
    inputs = named(home, "pocket-style", dataset_images=str(folder), adapter_start_from=str(file), adapter_rank=8,
                   adapter_alpha=1.0)  # fmt: skip
    told, wrong = planned(home, "pocket-style", inputs)
    assert wrong == {"adapter.rank": "small.safetensors has 4."}
    assert "small.safetensors has rank 4; the run has rank 8." in told


def test_page_and_console_say_of_a_file_to_continue_the_same(home, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "10000")
    given = ["--preset", "pocket-style", "--home", str(home.root), "--images", str(folder), "--adapter.rank", "8"]
    given += ["--adapter.alpha", "4", "--check", "--adapter.start_from"]
    fine = lora(tmp_path / "fine.safetensors")
    assert main([*given, str(fine)]) == 0
    assert "Continues from fine.safetensors: LoRA, rank 8, alpha 4, 1 layer of the UNet." in capsys.readouterr().out
    other = tmp_path / "other.safetensors"
    save_file({"lora_unet_mid_block_attentions_0_proj_in.hada_w1_a": np.zeros((192, 8), "f")}, other)
    assert main([*given, str(other)]) == 2
    said = f"The LoRA file {other} is a LoHa, which cannot be continued."
    assert f"Error (lora_refused): {said}" in capsys.readouterr().out
    inputs = named(home, "pocket-style", dataset_images=str(folder), adapter_start_from=str(other), adapter_rank=8)
    told, wrong = planned(home, "pocket-style", inputs)
    assert wrong == {"adapter.start_from": "other.safetensors is a LoHa, which cannot be continued."}
    assert said in told
    assert "help#lora_refused" in told


@pytest.mark.parametrize("preset", ["", "deleted since"])
def test_settings_of_a_preset_that_is_not_there_are_shown_over_the_goals_usual_one(home, preset):
    config = validated({"preset": preset, "goal": "character", "adapter": {"rank": 5}})
    shown = Desk.of(home, taken_up(home, RunFolder.create(home, config), None))
    assert shown.entered.preset == "pocket-character"
    assert shown.values["adapter.rank"] == 5


def test_a_run_does_not_go_on_from_a_file_outside_its_folder(home):
    run = RunFolder.create(home, validated({}))
    with pytest.raises(RunMissing):
        continuation(home, run, "../other.safetensors")


@pytest.mark.parametrize(
    ("name", "taken", "expected"),
    [
        ("ana", [], "ana 2"),
        ("ana", ["ana", "ana 2", "ana 3"], "ana 4"),
        ("ana 2", ["ana 2"], "ana 3"),
        ("ana in 3D", [], "ana in 3D 2"),
        ("7", [], "7 2"),
        ("ana 9", ["ana 10"], "ana 11"),
    ],
)
def test_names_are_counted_up_past_those_of_other_runs(home, name, taken, expected):
    for other in taken:
        RunFolder.create(home, validated({"output": {"name": other}}))
    assert next_name(home, name) == expected


# start, and the API


@pytest.fixture
def api(home, in_blocks, monkeypatch):
    """The endpoints by name; no process is started."""
    monkeypatch.setattr(process, "start", lambda _run: None)
    found = {}
    monkeypatch.setattr("app.api.api", lambda act, api_name: found.update({api_name: act}))
    in_blocks(lambda: register(home, Watches()))
    return SimpleNamespace(**found)


def test_start_by_name_takes_the_presets_values_for_what_is_not_given(api, home, folder):
    parameters = list(inspect.signature(api.start).parameters)
    given = {"preset": "pocket-character", "dataset_images": str(folder), "adapter_rank": 4}
    name = api.start(*[given.get(parameter) for parameter in parameters])
    config = RunFolder.find(home, name).config()
    assert (config.adapter.rank, config.adapter.text_encoder, config.dataset.views) == (4, True, 160)
    assert config.preset == "pocket-character"


def test_the_api_says_what_is_wrong_and_what_to_do(api):
    with pytest.raises(gr.Error, match="No preset called"):
        api.start("no-such")
    with pytest.raises(gr.Error, match="no such"):
        api.status("no such")


def test_status_and_runs_tell_state_step_and_error(api, home):
    run = RunFolder.create(home, validated({"output": {"name": "ana"}}))
    with EventLog(run.events_file) as log:
        log.write(Step(step=3, epoch=0, loss=0.25, lr=1e-3, grad_norm=1.0, seconds=1.0, memory_gib=1.5))
        log.write(RunFailed(code="x", message="The disk is full.", hint="Make room.", phase="train"))
    told = api.status(run.path.name)
    assert (told["state"], told["step"], told["loss"], told["error"]) == ("failed", 3, 0.25, "The disk is full.")
    assert api.status("") == told
    assert api.runs() == [told]
    assert status_of(Watch(run))["state"] == "waiting"


def test_requests_reach_the_run(api, home):
    run = RunFolder.create(home, validated({}))
    for what in ("stop", "pause", "save", "sample"):
        assert getattr(api, what)(run.path.name) == run.path.name
        assert run.asked_for(what) is not None


def test_the_queue_can_be_read_and_changed(api, home):
    runs = [RunFolder.create(home, validated({"output": {"name": name}})) for name in ("a", "b", "c")]
    with Queue(home)._changing() as waiting:
        waiting.extend(runs)
    names = [run.path.name for run in runs]
    assert api.queue() == names
    assert api.queue_move(names[2], 0) == [names[2], names[0], names[1]]
    assert api.queue_remove(names[0]) == [names[2], names[1]]


def test_a_run_of_images_that_cannot_be_used_is_not_made(home, tmp_path):
    with pytest.raises(FolderMissing):
        start_run(home, validated({"dataset": {"images": str(tmp_path / "no")}}))
    assert RunFolder.all(home) == []


def test_settings_without_a_folder_are_no_run(home):
    with pytest.raises(InvalidSettings, match="No image folder"):
        read(home, "pocket-style", named(home, "pocket-style", dataset_images=""))
