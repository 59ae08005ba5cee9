import json
import random
import shutil

import pytest
import tiny
import torch

from trainer.contract.events import EventLog, read_events
from trainer.contract.ours import NotOurs
from trainer.contract.settings.learning import AdapterSettings, OptimizerSettings
from trainer.engine.adapters.lora import attach
from trainer.engine.checkpoints import FORMAT, State, load_checkpoint, save_checkpoint
from trainer.engine.optim import make_optimizer
from trainer.runs.errors import CheckpointsDamaged, NewerVersion, ResumeRefused


@pytest.fixture
def trained(tiny_model):
    family = tiny.load(tiny_model)
    adapter = attach(family, AdapterSettings(rank=2), seed=0)
    optimizer = make_optimizer(adapter, OptimizerSettings())
    step(adapter, optimizer)
    return adapter, optimizer


def step(adapter, optimizer):
    sum(parameter.square().sum() + parameter.sum() for parameter in adapter.parameters()).backward()
    optimizer.step()
    optimizer.zero_grad()


def state(step_number=5, dataset="d"):
    return State(step=step_number, dataset=dataset, total_views=20, effective_batch=2)


def snapshot(adapter):
    return {name: tensor.clone() for name, tensor in adapter.state().items()}


def test_training_goes_on_exactly_where_it_was_saved(tmp_path, trained):
    adapter, optimizer = trained
    save_checkpoint(tmp_path, adapter, optimizer, state(), keep=2)
    step(adapter, optimizer)
    expected = snapshot(adapter)
    step(adapter, optimizer)
    assert load_checkpoint(tmp_path, adapter, optimizer, state()) == state()
    step(adapter, optimizer)
    assert all(torch.equal(expected[name], tensor) for name, tensor in adapter.state().items())


def test_only_the_newest_are_kept(tmp_path, trained):
    for number in (1, 2, 10, 100):
        save_checkpoint(tmp_path, *trained, state(number), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000010", "000100"]


def test_saving_the_same_step_again_replaces_it(tmp_path, trained):
    for _ in range(2):
        save_checkpoint(tmp_path, *trained, state(), keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["000005"]


def test_the_newest_is_the_one_with_the_highest_step_however_many_digits_it_has(tmp_path, trained):
    for number in (999_999, 1_000_000):
        save_checkpoint(tmp_path, *trained, state(number), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["1000000"]


def test_a_damaged_checkpoint_is_told_of(tmp_path, trained):
    whole = save_checkpoint(tmp_path / "checkpoints", *trained, state(5), keep=2)
    save_checkpoint(tmp_path / "checkpoints", *trained, state(4), keep=2)
    (whole / "state.json").write_text("{")
    with EventLog(tmp_path / "events.jsonl") as log:
        assert load_checkpoint(tmp_path / "checkpoints", *trained, state(), log).step == 4
    [warning], _, _ = read_events(tmp_path / "events.jsonl")
    assert warning.code == "damaged_checkpoint"
    assert "Damaged checkpoint 000005: training resumes from 000004" in warning.message


@pytest.mark.parametrize("name", ["state.json", "adapter.safetensors", "optimizer.safetensors"])
def test_one_flipped_bit_anywhere_makes_a_checkpoint_a_damaged_one(tmp_path, trained, name):
    save_checkpoint(tmp_path, *trained, state(4), keep=2)
    file = save_checkpoint(tmp_path, *trained, state(5), keep=2) / name
    whole = file.read_bytes()
    for number in range(40):
        place, bit = random.Random(number).randrange(len(whole)), number % 8
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        assert load_checkpoint(tmp_path, *trained, state()).step == 4, (place, bit)


def test_if_every_checkpoint_is_damaged_the_run_is_not_begun_anew(tmp_path, trained):
    for number in (4, 5):
        file = save_checkpoint(tmp_path, *trained, state(number), keep=2) / "adapter.safetensors"
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointsDamaged, match="000005, 000004"):
        load_checkpoint(tmp_path, *trained, state())


def test_a_checkpoint_of_an_earlier_version_has_no_digests_and_is_read(tmp_path, trained):
    file = save_checkpoint(tmp_path, *trained, state(), keep=2) / "state.json"
    known = json.loads(file.read_text())
    del known["digests"]
    file.write_text(json.dumps(known | {"format": FORMAT - 1}))
    assert load_checkpoint(tmp_path, *trained, state()).step == 5


def test_folders_that_are_no_checkpoints_are_left_alone(tmp_path, trained):
    (tmp_path / "000001").mkdir()
    (tmp_path / "000001" / "a picture.png").write_text("mine")
    (tmp_path / "000005").mkdir()
    (tmp_path / "000005" / "notes.txt").write_text("mine too")
    for number in (4, 5, 6):
        save_checkpoint(tmp_path, *trained, state(number), keep=1)
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == [
        "a picture.png", "adapter.safetensors", "notes.txt", "optimizer.safetensors", "state.json",
    ]  # fmt: skip


@pytest.mark.parametrize("linked", ["checkpoints", "checkpoints/000004", "checkpoints/.000006.part"])
def test_a_link_among_the_checkpoints_is_refused_and_not_followed(tmp_path, trained, linked):
    elsewhere = tmp_path / "elsewhere"
    for number in (1, 2):
        (elsewhere / f"{number:06}").mkdir(parents=True)
        (elsewhere / f"{number:06}" / "state.json").write_text("mine")
    (tmp_path / linked).parent.mkdir(exist_ok=True)
    (tmp_path / linked).symlink_to(elsewhere)
    with pytest.raises(NotOurs, match="is a link"):
        save_checkpoint(tmp_path / "checkpoints", *trained, state(6), keep=1)
    assert [path.read_text() for path in sorted(elsewhere.rglob("*.json"))] == ["mine", "mine"]


def test_a_later_versions_checkpoint_is_not_taken_for_a_damaged_one(tmp_path, trained):
    whole = save_checkpoint(tmp_path, *trained, state(5), keep=2)
    (whole / "state.json").write_text(json.dumps({"step": 5, "format": FORMAT + 1, "unheard_of": 1}))
    with pytest.raises(NewerVersion, match=f"format {FORMAT + 1}; this one reads up to {FORMAT}"):
        load_checkpoint(tmp_path, *trained, state())


@pytest.mark.parametrize("damage", ["state.json", "adapter.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("how", ["torn", "gone"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, trained, damage, how):
    save_checkpoint(tmp_path, *trained, state(5), keep=2)
    newest = save_checkpoint(tmp_path, *trained, state(6), keep=2)
    if how == "gone":
        (newest / damage).unlink()
    else:
        data = (newest / damage).read_bytes()
        (newest / damage).write_bytes(data[: len(data) // 2])
    assert load_checkpoint(tmp_path, *trained, state()).step == 5


def test_a_half_written_checkpoint_is_not_one(tmp_path, trained):
    whole = save_checkpoint(tmp_path, *trained, state(), keep=2)
    shutil.copytree(whole, tmp_path / ".000006.part")
    assert load_checkpoint(tmp_path, *trained, state()).step == 5


def test_without_a_checkpoint_there_is_nothing_to_resume(tmp_path, trained):
    assert load_checkpoint(tmp_path, *trained, state()) is None


@pytest.mark.parametrize(
    "now", [state(dataset="other"), State(step=0, dataset="d", total_views=22, effective_batch=2)], ids=["data", "plan"]
)
def test_changed_inputs_are_refused(tmp_path, trained, now):
    save_checkpoint(tmp_path, *trained, state(), keep=2)
    with pytest.raises(ResumeRefused):
        load_checkpoint(tmp_path, *trained, now)
