"""The training: one loop for every family, readable from top to bottom."""

import os
import time
from collections.abc import Callable
from functools import partial
from math import isfinite
from typing import cast

import torch
from torch import Tensor

from trainer.contract import events
from trainer.contract.errors import NonFiniteLoss
from trainer.contract.events import EventLog
from trainer.dataset.captions import captions_of
from trainer.dataset.views import micro_batches
from trainer.engine import objectives
from trainer.engine.data.batches import Sample, samples_of_step
from trainer.engine.data.encoding import masks_of
from trainer.engine.device import out_of_memory
from trainer.engine.distributed.collectives import everywhere, sum_gradients
from trainer.engine.errors import EntryGone
from trainer.engine.objectives import Batch, sample_rng, training_loss
from trainer.engine.optim import learning_rate_factor, set_learning_rate
from trainer.engine.outputs import checkpoint, finish, keep_last_good, lora_stem, preview, save_when_due, write_lora
from trainer.engine.prepare import prepare, resume
from trainer.engine.reporting import EndedEarly, report_divergence, report_step
from trainer.engine.savings import Ladder
from trainer.engine.state import Training
from trainer.engine.watch.nonfinite import Recovery, cause_of
from trainer.runs.folder import RunFolder

REST_SECONDS = 1.0  # between two looks whether something was asked
ENCODED_AGAIN = 3  # times in one process; somebody who deletes the cache oftener would have a run without an end
LONG_RUN = 100  # steps from which on two more are a small price


def train(run: RunFolder, log: EventLog) -> None:
    """Train the run in `run` to its end, or until it is asked to stop or pause.

    When memory runs out, it resumes from the last checkpoint with one more saving; when losses, gradients or weights
    are no longer finite, with half the learning rate. What was deleted from the cache meanwhile is encoded again.

    Raises:
        TrainerError: Anything the user can act on; what was saved before stays.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    began, ladder, recovery = time.monotonic(), Ladder(run.config(), processes), Recovery()
    gone = 0
    while True:
        recover: Callable[[], None]
        try:
            _train(prepare(run, log, ladder), recovery, began)
        except EndedEarly as wish:
            kept = run.view().checkpoints
            step = kept[-1].step if kept else 0
            seconds = time.monotonic() - began
            log.write(events.RunFinished(reason=wish.reason, step=step, seconds=seconds, by_system=wish.by_system))
            return
        except NonFiniteLoss as error:
            recover = partial(recovery.go_back, error.with_traceback(None), log)
        except EntryGone as error:
            gone += 1
            if gone > ENCODED_AGAIN or processes > 1:  # the other processes wait in vain
                raise
            hint = "It is encoded again. Leave the cache alone while a training runs."
            recover = partial(log.write, events.Warned(code=error.code, message=error.message, hint=hint))
        except (RuntimeError, MemoryError) as error:
            short = out_of_memory(error)
            if not short or processes > 1:  # the other processes wait in vain
                raise
            recover = partial(ladder.step_down, short, log)
        else:
            return
        recover()  # here, where the error with all it holds is gone


def _train(training: Training, recovery: Recovery, began: float) -> None:
    """From the first step, or that of the newest checkpoint, to the end."""
    training.recovery, went_back = recovery, recovery.went_back
    first = resume(training)
    if first == 0:
        rehearse(training)
        preview(training)
    elif not went_back:  # just now: before it left this checkpoint, it made all that belongs there
        save_when_due(training, again=True)
    try:
        _steps(training, first, began)
    except NonFiniteLoss:
        if recovery.went_back:
            keep_last_good(training)
        raise
    except EntryGone:
        checkpoint(training)  # the step that lacks it has changed nothing yet
        raise


def _steps(training: Training, first: int, began: float) -> None:
    """The steps from this one on, and what ends the run."""
    for step in range(first, training.plan.steps):
        since = time.monotonic()
        factor = learning_rate_factor(step, training.plan.steps, training.config.optimizer)
        lr = set_learning_rate(training.optimizer, factor * training.recovery.rate)
        try:
            loss, grad_norm = update(training, step)
        except NonFiniteLoss as error:
            training.step = step + 1
            training.recovery.leave_out(error, training.log)
        else:
            training.step, training.recovery.in_a_row = step + 1, 0
            report_step(training, loss, lr, grad_norm, time.monotonic() - since)
            training.standstill.look(loss, grad_norm, last=training.step == training.plan.steps)
            if training.yardstick.asks(loss):
                report_divergence(training, loss, base_loss(training, step))
        save_when_due(training)
        rest(training)
        ending = honour_requests(training)
        if ending:
            finish(training, ending, time.monotonic() - began)
            return
    finish(training, "completed", time.monotonic() - began)


def rehearse(training: Training) -> None:
    """Try the largest batch of a long run twice, so that memory that runs out does so now and not in hours.

    Its gradients are thrown away. Where all images have one size the first step is as large.
    """
    sizes = training.data.buckets
    if training.plan.steps < LONG_RUN or len(set(sizes)) == 1:
        return
    config, largest = training.config, max(range(len(sizes)), key=lambda item: sizes[item].width * sizes[item].height)
    caption = captions_of(training.data.items[largest], config.dataset, config.model.seed)[0]
    sample = Sample(0, largest, mirrored=False, caption=caption)
    for _ in range(2):
        learn(training, [sample] * config.dataset.batch_size, 0, 1)
    training.optimizer.zero_grad()


def update(training: Training, step: int) -> tuple[float, float]:
    """One optimizer update over the step's samples; returns mean loss and gradient norm before clipping.

    Each process takes every n-th sample. Losses are divided by the whole step's sample count, and gradients are
    summed over processes, so neither batch shape nor process count changes the update.

    Raises:
        NonFiniteLoss: One of the two is not finite; no weight has changed.
    """
    accelerator, config = training.accelerator, training.config
    samples, mine = samples_at(training, step)
    read_ahead(training, step + 1)
    sizes = [training.data.size(sample) for sample in samples]
    shares = torch.zeros(len(samples), device=accelerator.device)  # of the mean loss, by sample
    for places in micro_batches(mine, sizes, config.dataset.batch_size):
        # Dropout uses the global generator: seeded like a sample that no step has, not like this one's noise
        torch.manual_seed(sample_rng(config.model.seed, step, -1 - places[0]).initial_seed())
        shares[list(places)] = learn(training, [samples[place] for place in places], step, len(samples))
    parameters = training.adapter.parameters()
    sum_gradients(accelerator, parameters)
    norm = accelerator.clip_grad_norm_(parameters, config.optimizer.clip_norm or float("inf"))
    both = torch.cat([cast("Tensor", accelerator.reduce(shares, "sum")), cast("Tensor", norm).to(shares).view(1)])
    *losses, grad_norm = both.tolist()  # one wait for the device
    loss = sum(losses)
    if accelerator.scaler is not None or isfinite(loss + grad_norm):  # a gradient scaler leaves steps out by itself
        training.optimizer.step()
    training.optimizer.zero_grad()
    if training.recovery.scaler_helps(accelerator.optimizer_step_was_skipped):
        grad_norm = 0.0
    if not isfinite(loss + grad_norm):
        names = [training.data.item(sample).name for sample in samples]
        what = f"gradient became {grad_norm}" if isfinite(loss) else f"loss became {loss}"
        cause = cause_of(names, losses, training.precision)
        raise NonFiniteLoss(what, step + 1, training.optimizer.param_groups[0]["lr"], cause)
    return loss, grad_norm


@torch.no_grad()
def base_loss(training: Training, step: int) -> float:
    """Mean loss of the base model without the adapter on a step's samples, with the same noise; changes nothing."""
    accelerator, config, predict = training.accelerator, training.config, training.family.predict
    samples, mine = samples_at(training, step)
    sizes = [training.data.size(sample) for sample in samples]
    shares = torch.zeros(len(samples), device=accelerator.device)
    with training.adapter.switched_off(), accelerator.autocast():
        for places in micro_batches(mine, sizes, config.dataset.batch_size):
            chosen = [samples[place] for place in places]
            rng = [sample_rng(config.model.seed, step, sample.index) for sample in chosen]
            losses = objectives.training_loss(predict, predict, batch_of(training, chosen), training.schedule, rng)
            shares[list(places)] = losses / len(samples)
    return float(cast("Tensor", accelerator.reduce(shares, "sum")).sum())


def samples_at(training: Training, step: int) -> tuple[list[Sample], range]:
    """What a step shows, and which places of it this process takes."""
    accelerator, config = training.accelerator, training.config
    samples = training.coming.pop(step, None)
    if samples is None:
        samples = samples_of_step(step, training.plan, training.data, config.dataset, config.model.seed)
    return samples, range(accelerator.process_index, len(samples), accelerator.num_processes)


def read_ahead(training: Training, step: int) -> None:
    """Begin to read what a step takes, so that it does not wait for a disk; beyond the last there is none."""
    if step >= training.plan.steps:
        return
    samples, mine = samples_at(training, step)
    training.coming = {step: samples}
    coming = [samples[place] for place in mine]
    training.data.read_ahead(coming)
    training.text.read_ahead([sample.caption for sample in coming])


def learn(training: Training, chosen: list[Sample], step: int, of: int) -> Tensor:
    """Add these samples' gradients, of a step of so many; returns each one's share of its mean loss, (B,)."""
    rng = [sample_rng(training.config.model.seed, step, sample.index) for sample in chosen]
    with training.accelerator.autocast():
        batch = batch_of(training, chosen)
        losses = training_loss(training.family.predict, training.base_prediction, batch, training.schedule, rng)
    shares = losses / of
    training.accelerator.backward(shares.sum())
    return shares.detach()


def batch_of(training: Training, samples: list[Sample]) -> Batch:
    """The samples' tensors on the device, in one batch."""
    device = training.accelerator.device
    encoded = [training.data.encoded(sample) for sample in samples]
    return Batch(
        mean=torch.stack([e.mean for e in encoded]).to(device),
        std=torch.stack([e.std for e in encoded]).to(device),
        conditioning=training.text([sample.caption for sample in samples], device).framed(
            torch.tensor([training.data.frame(sample) for sample in samples], device=device)
        ),
        withheld=torch.tensor([sample.withheld for sample in samples], device=device),
        is_class_image=torch.tensor([sample.is_class_image for sample in samples], device=device)
        if training.data.class_images
        else None,
        mask=masks_of(encoded),
    )


def rest(training: Training) -> None:
    """Save and wait while the computer is short of power or too hot, or until the run is asked for something."""
    if not any(everywhere(training.accelerator, bool(training.power.look(training.config.model)))):
        return
    checkpoint(training)
    why = training.power.why or "another computer's battery or heat"
    hint = "It continues by itself once that has passed; everything is saved."
    training.log.write(events.Warned(code="resting", message=f"The run waits: {why}.", hint=hint))
    asked = False
    while not asked and any(everywhere(training.accelerator, bool(training.power.look(training.config.model)))):
        time.sleep(REST_SECONDS)
        asked = any(everywhere(training.accelerator, any(training.run.control.glob("*"))))


def honour_requests(training: Training) -> str:
    """Do what the control files ask; returns "ended", "stopped" or "paused" if the run is to end now."""
    if _asked(training, "end"):
        return "ended"
    if _asked(training, "save"):
        checkpoint(training)
        write_lora(training, lora_stem(training))
    if _asked(training, "sample"):
        preview(training)
    if _asked(training, "stop"):
        return "stopped"
    return "paused" if _asked(training, "pause") else ""


def _asked(training: Training, what: str) -> bool:
    """Whether one of the processes found a request; all get the same answer.

    Only the first is asked by people; to end, each is asked, on its computer.
    """
    looks = training.accelerator.is_main_process or what == "end"
    asked = looks and training.run.take_request(what)  # type: ignore[arg-type]
    return any(everywhere(training.accelerator, asked))
