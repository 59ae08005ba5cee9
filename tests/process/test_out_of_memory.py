"""Memory that runs out does not end a run: it goes on from its last checkpoint and takes less."""

import pytest
import torch
from safetensors.torch import load_file

from trainer.__main__ import main
from trainer.contract.events import RunFailed, RunFinished, Warned, read_events
from trainer.engine import loop, outputs, prepare
from trainer.engine.families import parts

PHASES = {
    "while the base model is read": (parts, "_fill", 0),
    "while images are encoded": (prepare, "encode_dataset", 0),
    "while the adapter is made": (prepare, "add_adapter", 0),
    "in the first step": (loop, "update", 0),
    "in a later step": (loop, "update", 5),
    "while a checkpoint is saved": (outputs, "save_checkpoint", 1),
    "while a file is written": (outputs, "export", 1),
}


SETTINGS = {"dataset": {"views": 4, "batch_size": 2}, "adapter": {"text_encoder": True}}


@pytest.fixture(scope="module")
def undisturbed():
    """The weights of a run to which nothing happened; made by the first test that needs them."""
    return {}


def fail_once(monkeypatch, module, name, after):
    """Let a function of the loop run out of memory, once, after so many calls that went well."""
    plain, calls = getattr(module, name), []

    def short(*arguments, **named):
        calls.append(name)
        if len(calls) == after + 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has none left")
        return plain(*arguments, **named)

    monkeypatch.setattr(module, name, short)
    return calls


def weights(run):
    return load_file(run.path / "bälle.safetensors")


@pytest.mark.parametrize("phase", PHASES)
def test_the_run_goes_on_with_one_saving_more_and_makes_the_same_file(phase, new_run, monkeypatch, undisturbed):
    if not undisturbed:
        plain = new_run("plain", **SETTINGS)
        assert main([str(plain.path)]) == 0
        undisturbed |= weights(plain)
    run = new_run("short", **SETTINGS)
    module, name, after = PHASES[phase]
    calls = fail_once(monkeypatch, module, name, after)
    assert main([str(run.path)]) == 0
    assert len(calls) > after + 1, "it was tried again"
    events, _, _ = read_events(run.events_file)
    told = [event for event in events if isinstance(event, Warned) and event.code == "out_of_memory"]
    assert len(told) == 1
    assert "Tried" not in told[0].message, "one sentence of it is enough"
    assert [type(event) for event in events if isinstance(event, RunFinished | RunFailed)] == [RunFinished]
    steps = [step.step for step in run.view().steps]
    assert steps == list(range(1, 11))
    ours, theirs = weights(run), undisturbed
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_run_that_nothing_helps_ends_with_what_to_do(new_run, monkeypatch):
    run = new_run(**SETTINGS)
    tried = []

    def short(training, _step):
        tried.append(training.config.model.gradient_checkpointing)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(loop, "update", short)
    assert main([str(run.path)]) == 2
    assert tried == ["none", "feed_forward", "blocks", "full", "full", "full", "full"], (
        "then half the batch, 8 and 4 bits"
    )
    ended = run.view().ended
    assert ended.code == "out_of_memory"
    assert "resolution" in ended.hint
