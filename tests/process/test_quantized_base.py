"""Real trainings of the tiny model on a base in 8 and in 4 bits, and on one that is streamed from system memory."""

import pytest
import torch
import warm
from safetensors.torch import load_file

from trainer.__main__ import main
from trainer.contract.events import RunFinished, Warned, read_events
from trainer.engine import loop, prepare
from trainer.engine.frozen.quantized import QuantizedWeight
from trainer.planning import memory


def events(run, kind):
    return [event for event in read_events(run.events_file)[0] if isinstance(event, kind)]


def lora(run):
    return load_file(run.path / "bälle.safetensors")


def settings(bits, precision="fp32"):
    return {"model": {"quantize": bits, "precision": precision}, "adapter": {"text_encoder": True}}


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_trains_previews_pauses_and_goes_on_to_the_same_file(bits, precision, new_run):
    short = {"dataset": {"views": 2}, **settings(bits, precision)}
    whole, broken = (new_run(home, **short) for home in ("whole", "broken"))
    assert warm.start(whole).wait() == 0
    assert warm.start(broken, "pause").wait() == 0
    assert warm.start(broken).wait() == 0
    assert [event.reason for event in events(broken, RunFinished)] == ["paused", "completed"]
    assert list(whole.samples.glob("000005-*.png"))
    ours, theirs = lora(broken), lora(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert any(tensor.abs().max() > 1e-4 for name, tensor in ours.items() if "lora_up" in name)


def test_the_base_is_held_as_the_settings_say(new_run, monkeypatch):
    seen = []
    report = loop.report_step

    def note_and_report(training, *figures):
        unet = training.family.component("unet")
        seen.append(any(isinstance(weight, QuantizedWeight) for weight in unet.parameters()))
        report(training, *figures)

    monkeypatch.setattr(loop, "report_step", note_and_report)
    assert main([str(new_run("held", **settings("4bit")).path)]) == 0
    assert main([str(new_run("plain").path)]) == 0
    assert seen == [True] * 10 + [False] * 10


def test_a_base_that_is_streamed_gives_the_same_previews_and_the_same_lora(new_run):
    runs = []
    for stream in ("on", "off"):
        model = {"quantize": "4bit", "offload": stream, "gradient_checkpointing": "blocks"}
        runs.append(new_run(stream, model=model, dataset={"views": 1}, output={"files": 1}))
        assert main([str(runs[-1].path)]) == 0
    ours, theirs = map(lora, runs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    images = [[path.read_bytes() for path in sorted(run.samples.glob("*.png"))] for run in runs]
    assert images[0] == images[1] != []


def test_a_run_that_ran_out_of_memory_goes_on_with_fewer_bits(new_run, monkeypatch):
    run = new_run(dataset={"batch_size": 1, "views": 2}, model={"gradient_checkpointing": "full"})
    bits, plain = [], loop.update

    def short(training, step):
        bits.append(training.config.model.quantize)
        if bits[-1] != "4bit" and step == 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return plain(training, step)

    monkeypatch.setattr(loop, "update", short)
    assert main([str(run.path)]) == 0
    assert list(dict.fromkeys(bits)) == [rung.quantize for rung in memory.ladder(run.config(), "cpu")]
    assert [step.step for step in run.view().steps] == list(range(1, 11))
    told = [event for event in events(run, Warned) if event.code == "out_of_memory"]
    assert ["base model quantized to" in one.message for one in told] == [True, True]
    assert all("slightly less precise" in one.hint for one in told)


def test_the_plan_is_made_before_the_base_is_loaded(new_run, monkeypatch):
    monkeypatch.setattr(memory, "knows", lambda _family, _numbers: True)
    run = new_run(model={"memory_limit": 0.5})
    loaded, plain = [], prepare.load_family

    def note_and_load(config, device, dtype):
        loaded.append(config.model.quantize)
        return plain(config, device, dtype)

    monkeypatch.setattr(prepare, "load_family", note_and_load)
    assert main([str(run.path)]) == 0
    assert loaded == ["4bit"]
    assert {event.code for event in events(run, Warned)} >= {"saves_memory", "may_not_fit"}
