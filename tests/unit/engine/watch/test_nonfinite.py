"""Numbers that are not finite harm no weight and no file; their cause is named."""

import math
from itertools import count
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from trainer.__main__ import main
from trainer.contract.errors import NonFiniteLoss
from trainer.contract.events import (
    Checkpoint,
    EventLog,
    Lora,
    RunFailed,
    RunFinished,
    RunStarted,
    Step,
    Warned,
    read_events,
)
from trainer.engine import loop
from trainer.engine.prepare import prepare, resume
from trainer.engine.savings import Ladder
from trainer.engine.watch.nonfinite import IN_A_ROW, SCALED, Recovery, cause_of

CONSTANT = {"learning_rate": 0.001, "lr_scheduler": "constant", "warmup": 0.0}


def spoil(monkeypatch, calls, factor=math.nan, place=slice(None)):
    """Make the losses of these calls of the objective not finite; the others' stay."""
    number, losses = count(1), loop.training_loss

    def spoilt(*given):
        made = losses(*given)
        if next(number) in calls:
            made = made.clone()
            made[place] = made[place] * factor
        return made

    monkeypatch.setattr(loop, "training_loss", spoilt)


def train_here(run):
    return main([str(run.path)])


def events(run, kind):
    return [event for event in read_events(run.events_file)[0] if isinstance(event, kind)]


def warnings(run, code):
    return [event for event in events(run, Warned) if event.code == code]


def bits(run):
    newest = max(run.checkpoints.iterdir())
    return load_file(newest / "adapter.safetensors")


@pytest.mark.parametrize("factor", [math.nan, math.inf, -math.inf])
def test_a_step_that_is_not_finite_is_left_out_and_told(new_run, monkeypatch, factor):
    run = new_run(optimizer=CONSTANT)
    spoil(monkeypatch, {5}, factor)
    assert train_here(run) == 0
    (warning,) = warnings(run, "step_left_out")
    assert "step 5 (learning rate 0.001): the learning rate is probably too high" in warning.message
    total = events(run, RunStarted)[0].steps_total
    assert [step.step for step in events(run, Step)] == [step for step in range(1, total + 1) if step != 5]
    assert events(run, RunFinished)[0].reason == "completed"


def test_a_gradient_that_is_not_finite_changes_no_weight(new_run):
    run = new_run(optimizer=CONSTANT)
    with EventLog(run.events_file) as log:
        training = prepare(run, log, Ladder(run.config()))
        resume(training)
        loop.update(training, 0)
        before = training.adapter.state()
        before = {name: tensor.clone() for name, tensor in before.items()}
        moments = [state["exp_avg"].clone() for state in training.optimizer.state.values()]
        training.adapter.parameters()[3].register_hook(lambda grad: grad * math.inf)
        with pytest.raises(NonFiniteLoss, match=r"The gradient became (nan|inf) at step 2"):
            loop.update(training, 1)
    after = training.adapter.state()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(map(torch.equal, moments, [state["exp_avg"] for state in training.optimizer.state.values()]))


def test_one_image_alone_is_named(new_run, monkeypatch):
    run = new_run(optimizer=CONSTANT, dataset={"batch_size": 4})
    spoil(monkeypatch, {2}, place=slice(1, 2))
    assert train_here(run) == 0
    (warning,) = warnings(run, "step_left_out")
    names = [path.name for path in Path(run.config().dataset.images).iterdir()]
    assert sum(f"it comes from {name} alone" in warning.message for name in names) == 1
    assert "exclude it" in warning.hint


def test_where_leaving_out_does_not_help_the_run_goes_back_once_with_half_the_learning_rate(new_run, monkeypatch):
    run = new_run(optimizer=CONSTANT, output={"checkpoint_every": 3})
    spoil(monkeypatch, {5, 6, 7})
    assert train_here(run) == 0
    assert len(warnings(run, "went_back")) == 1
    assert [start.resumed_at for start in events(run, RunStarted)] == [0, 3]
    rates = [step.lr for step in events(run, Step)]
    assert rates == [0.001] * 4 + [0.0005] * (len(rates) - 4)


def test_files_from_before_it_went_back_are_not_taken_for_those_after(new_run, monkeypatch):
    run = new_run(optimizer=CONSTANT, output={"checkpoint_every": 3, "files": 100})
    spoil(monkeypatch, {5, 6, 7})
    assert train_here(run) == 0
    files = [lora.file for lora in events(run, Lora)]
    before = [f"bälle-{step:06}.safetensors" for step in range(1, 5)]
    after = [f"bälle-{step:06}-half-rate.safetensors" for step in range(4, len(files) - 1)]
    assert files == [*before, *after, "bälle.safetensors"]
    full, half = (load_file(run.path / file) for file in (before[-1], after[0]))
    assert any(not torch.equal(full[name], half[name]) for name in full)


def test_before_the_first_checkpoint_it_goes_back_to_the_start(new_run, monkeypatch):
    run = new_run(optimizer=CONSTANT, output={"checkpoint_every": 1000})
    spoil(monkeypatch, {2, 3, 4})
    assert train_here(run) == 0
    assert [start.resumed_at for start in events(run, RunStarted)] == [0, 0]


def test_the_second_time_it_ends_with_the_last_good_file(new_run, monkeypatch):
    run = new_run(optimizer=CONSTANT, output={"checkpoint_every": 3, "files": 1})
    spoil(monkeypatch, set(range(5, 100)))
    assert train_here(run) == 2
    (failure,) = events(run, RunFailed)
    assert failure.code == "non_finite_loss"
    (lora,) = events(run, Lora)
    assert (lora.step, lora.file) == (3, "bälle-000003.safetensors")
    assert all(tensor.isfinite().all() for tensor in load_file(run.path / lora.file).values())
    assert all(tensor.isfinite().all() for tensor in bits(run).values())


def test_a_gradient_scaler_that_finds_no_scale_is_no_excuse(new_run, monkeypatch):
    run = new_run(optimizer=CONSTANT, dataset={"views": 20}, output={"checkpoint_every": 1000})
    monkeypatch.setattr(Accelerator, "optimizer_step_was_skipped", property(lambda _: True))
    monkeypatch.setattr(Accelerator, "clip_grad_norm_", lambda *_: torch.tensor(math.inf))
    assert train_here(run) == 2
    assert len(warnings(run, "went_back")) == 1
    assert [step.grad_norm for step in events(run, Step)] == [0.0] * 2 * SCALED
    assert events(run, RunFailed)[0].code == "non_finite_loss"


def test_half_the_learning_rate_outlives_a_new_process(new_run, monkeypatch):
    run = new_run(optimizer=CONSTANT, output={"checkpoint_every": 2})
    spoil(monkeypatch, {3, 4, 5})
    assert train_here(run) == 0
    with EventLog(run.events_file) as log:
        training = prepare(run, log, Ladder(run.config()))
        resume(training)
    assert training.recovery == Recovery(rate=0.5)


def test_weights_that_are_not_finite_reach_no_file(new_run, monkeypatch):
    run = new_run(optimizer=CONSTANT, output={"checkpoint_every": 2, "files": 100})
    updates, number = loop.update, count(1)

    def poisoned(training, step):
        made = updates(training, step)
        if next(number) >= 4:
            training.adapter.parameters()[0].data[0, 0] = math.nan
        return made

    monkeypatch.setattr(loop, "update", poisoned)
    assert train_here(run) == 2
    (failure,) = events(run, RunFailed)
    assert failure.code == "non_finite_loss"
    written = [*run.path.rglob("*.safetensors")]
    assert len(written) >= 3
    for path in written:
        assert all(tensor.isfinite().all() for tensor in load_file(path).values()), path
    assert {event.step for event in events(run, Checkpoint)} == {2}


def test_leaving_out_is_patient_and_tells_each_cause_once(tmp_path):
    recovery = Recovery()
    error = NonFiniteLoss("loss became nan", 3, 0.1, ("why", "what to do"))
    with EventLog(tmp_path / "events.jsonl") as log:
        for _ in range(IN_A_ROW - 1):
            recovery.leave_out(error, log)
        recovery.in_a_row = 0  # a step went well
        recovery.leave_out(error, log)
        recovery.leave_out(error, log)
        with pytest.raises(NonFiniteLoss):
            recovery.leave_out(error, log)
    assert (tmp_path / "events.jsonl").read_text().count("step_left_out") == 1


def test_fp16_is_named_where_all_losses_are_spoilt():
    assert "65,504" in cause_of(["a.png", "b.png"], [math.nan, math.inf], "fp16")[0]
    assert "learning rate" in cause_of(["a.png"], [math.nan], "bf16")[0]
    assert cause_of([*"abcde"], [0.1] + [math.nan] * 4, "fp16")[0] == "it comes from b, c, d and 1 more alone"


def test_a_card_that_is_gone_is_named(new_run, monkeypatch):
    def gone(_training, _step):
        raise torch.AcceleratorError("CUDA error: unspecified launch failure\nCUDA kernel errors might be …")

    monkeypatch.setattr(loop, "update", gone)
    run = new_run()
    assert train_here(run) == 2
    (failure,) = events(run, RunFailed)
    assert failure.code == "device_lost"
    assert "no longer responds: CUDA error: unspecified launch failure." in failure.message
