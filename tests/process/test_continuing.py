"""Real trainings on the tiny model that go on from a finished LoRA file."""

import re

import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from warm import asking

from trainer.__main__ import main
from trainer.contract.events import RunFailed, RunFinished, Step, Warned, read_events
from trainer.contract.wording import for_console
from trainer.engine import loop
from trainer.engine.adapters.lora_file import client_delta
from trainer.models.lora_names import kohya_name
from trainer.runs.folder import RunFolder

LEARNS = {"optimizer": {"learning_rate": 0.02}, "dataset": {"views": 2}}


def train(run):
    return main([str(run.path)])


def events(run, kind):
    return [event for event in read_events(run.events_file)[0] if isinstance(event, kind)]


@pytest.fixture
def finished(new_run):
    """A LoRA file with an update in every layer that it has."""
    run = new_run("first", **LEARNS)
    assert train(run) == 0
    return run.path / "bälle.safetensors"


@pytest.fixture
def at_start(monkeypatch):
    """The updates of a training's layers when it draws its first preview."""
    found = {}
    draw = loop.preview

    def note_and_draw(training):
        if training.step == 0:
            found.update({name: live.delta() for name, live in training.adapter.layers.items()})
        draw(training)

    monkeypatch.setattr(loop, "preview", note_and_draw)
    return found


def deltas(file):
    tensors = load_file(file)
    names = [name.removesuffix(".alpha") for name in tensors if name.endswith(".alpha")]
    leaves = ("lora_down.weight", "lora_up.weight", "alpha")
    return {name: client_delta(*(tensors[f"{name}.{leaf}"] for leaf in leaves)) for name in names}


def test_a_training_starts_with_exactly_the_files_update_and_learns_on(new_run, finished, at_start):
    run = new_run("second", adapter={"start_from": str(finished)}, **LEARNS)
    assert train(run) == 0
    written = deltas(finished)
    assert at_start.keys() == written.keys()
    assert any(delta.abs().max() > 1e-3 for delta in written.values())
    for name, delta in written.items():
        torch.testing.assert_close(at_start[name], delta)
    learnt = deltas(run.path / "bälle.safetensors")
    assert any((learnt[name] - delta).abs().max() > 1e-3 for name, delta in written.items())


def test_the_file_says_by_name_alone_what_it_was_made_from(new_run, finished):
    run = new_run("second", adapter={"start_from": str(finished)}, **LEARNS)
    assert train(run) == 0
    with safe_open(run.path / "bälle.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["ss_training_comment"].endswith("; continued from bälle.safetensors")
    assert str(finished.parent) not in str(metadata)


def test_a_resumed_training_goes_on_from_its_checkpoint_and_needs_the_file_no_more(new_run, finished, monkeypatch):
    settings = {"optimizer": LEARNS["optimizer"], "dataset": {"views": 4}, "adapter": {"start_from": str(finished)}}
    whole, broken = new_run("whole", **settings), new_run("broken", **settings)
    assert train(whole) == 0
    with monkeypatch.context() as patch:
        patch.setattr(loop, "rest", asking("pause"))
        assert train(broken) == 0
    finished.unlink()
    assert train(broken) == 0
    assert [event.reason for event in events(broken, RunFinished)] == ["paused", "completed"]
    ours, theirs = (load_file(run.path / "bälle.safetensors") for run in (broken, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_layers_that_the_file_lacks_start_fresh_and_that_is_told(new_run, finished, at_start):
    run = new_run("second", adapter={"start_from": str(finished), "text_encoder": True}, **LEARNS)
    assert train(run) == 0
    (warning,) = (event for event in events(run, Warned) if event.code == "layers_start_fresh")
    lacking = at_start.keys() - deltas(finished).keys()
    assert f"bälle.safetensors lacks {len(lacking)} of {len(at_start)} layers, first lora_te" in warning.message
    assert lacking
    assert all(at_start[name].abs().max() == 0 for name in lacking)


@pytest.mark.parametrize("form", ["peft", "processors"])
def test_another_programs_form_of_a_file_makes_the_same_first_loss(new_run, finished, tiny_model, form):
    unet, other = tiny.load(tiny_model).component("unet"), finished.with_name("other.safetensors")
    names = {kohya_name("unet", path): path for path, _ in unet.named_modules()}
    halves = {"lora_down": ("lora_A", "down"), "lora_up": ("lora_B", "up")}
    tensors = {}
    for name, tensor in load_file(finished).items():
        layer, _, leaf = name.partition(".")
        path, (peft, old) = names[layer], halves.get(leaf.partition(".")[0], ("", ""))
        in_processor = re.sub(r"(attn.)\.(to_\w+)(\.0)?$", r"\1.processor.\2_lora", path)
        stem = in_processor if in_processor != path else f"{path}.lora"
        made = f"unet.{path}.{peft}.weight" if form == "peft" else f"unet.{stem}.{old}.weight"
        tensors[made if old else f"unet.{path}.alpha"] = tensor
    save_file(tensors, other)
    losses = []
    for number, file in enumerate((finished, other)):
        run = new_run(f"home {number}", adapter={"start_from": str(file)}, **LEARNS)
        assert train(run) == 0
        assert "layers_start_fresh" not in {event.code for event in events(run, Warned)}
        losses.append([event.loss for event in events(run, Step)])
    assert losses[0] == losses[1]
    assert losses[0] != [event.loss for event in events(RunFolder(finished.parent), Step)]


def test_another_rank_is_one_failure_that_says_what_to_set(new_run, finished):
    run = new_run("second", adapter={"start_from": str(finished), "rank": 8}, **LEARNS)
    assert train(run) == 2
    (failure,) = events(run, RunFailed)
    assert failure.code == "invalid_settings"
    assert failure.message == "bälle.safetensors has rank 4; the run has rank 8."
    assert for_console(failure.hint) == "Set --adapter.rank 4."


def test_a_file_with_layers_that_are_not_trained_here_is_one_failure(new_run, finished):
    layer, second = "lora_te2_text_model_encoder_layers_0_mlp_fc1", finished.with_name("xl.safetensors")
    added = {f"{layer}.lora_down.weight": torch.zeros(4, 32), f"{layer}.lora_up.weight": torch.zeros(64, 4)}
    save_file({**load_file(finished), **added, f"{layer}.alpha": torch.tensor(2.0)}, second)
    run = new_run("second", adapter={"start_from": str(second)}, **LEARNS)
    assert train(run) == 2
    (failure,) = events(run, RunFailed)
    assert failure.code == "lora_refused"
    assert "xl.safetensors was made for SDXL; the base model is SD 1.x" in failure.message
    assert not events(run, RunFinished)


def test_a_file_that_is_gone_is_one_failure(new_run, tmp_path):
    run = new_run("second", adapter={"start_from": str(tmp_path / "gone.safetensors")}, **LEARNS)
    assert train(run) == 2
    (failure,) = events(run, RunFailed)
    assert str(tmp_path / "gone.safetensors") in failure.message
