"""The training: one loop for every family, readable from top to bottom."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Literal, cast

import torch
from torch import Tensor

from trainer.assembly import add_adapter, learn_text, put_away, start_from
from trainer.checkpoints import State, load_checkpoint, save_checkpoint
from trainer.contract import events
from trainer.contract.buckets import micro_batches, plan
from trainer.contract.captions import captions_of, first_caption, pictures_of
from trainer.contract.drawing import DEFAULT_PREVIEWS, due, preview_prompts
from trainer.contract.errors import NonFiniteLoss
from trainer.contract.events import EventLog
from trainer.contract.problems import unreadable
from trainer.contract.runs import RunFolder
from trainer.data.batches import Sample, encode_dataset, samples_of_step
from trainer.data.cache import TensorCache
from trainer.data.encoding import masks_of
from trainer.device import DTYPES, free_bytes, make_accelerator, memory_gib, out_of_memory
from trainer.families.ahead import ReadAhead
from trainer.families.load import chosen_model, load_family
from trainer.fitting import Ladder
from trainer.identity import inputs_of
from trainer.objectives import Batch, make_schedule, sample_rng, training_loss
from trainer.optim import learning_rate_factor, make_optimizer, set_learning_rate
from trainer.pace import nearly_full
from trainer.previews import Painter, PreviewBoard
from trainer.protect import Protector, class_prompts
from trainer.results import draw_strip, write_lora, write_sidecars
from trainer.together import check_alike, everywhere, sum_gradients
from trainer.training import Training

DEFAULT_CHECKPOINTS = 10
LONG_RUN = 100  # steps from which on two more are a small price


def train(run: RunFolder, log: EventLog) -> None:
    """Train the run in `run` to its end, or until it is asked to stop or pause.

    When memory runs out, it goes on from the last checkpoint with one saving more.

    Raises:
        TrainerError: Anything the user can act on; what was saved before stays.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    began, ladder = time.monotonic(), Ladder(run.config(), processes)
    while True:
        try:
            _train(prepare(run, log, ladder), began)
        except (RuntimeError, MemoryError) as error:
            short = out_of_memory(error)
            if not short or processes > 1:  # the other processes wait in vain
                raise
        else:
            return
        ladder.step_down(short, log)  # here, where the error with all it holds is gone


def _train(training: Training, began: float) -> None:
    """From the first step, or that of the newest checkpoint, to the end."""
    first = resume(training)
    if first == 0:
        rehearse(training)
        preview(training)
    else:
        save_when_due(training, again=True)
    for step in range(first, training.plan.steps):
        since = time.monotonic()
        lr = set_learning_rate(
            training.optimizer, learning_rate_factor(step, training.plan.steps, training.config.optimizer)
        )
        loss, grad_norm = update(training, step)
        if not (loss < float("inf") and grad_norm < float("inf")):  # NaN compares false
            raise NonFiniteLoss(step + 1, loss, lr)
        training.step = step + 1
        report_step(training, loss, lr, grad_norm, time.monotonic() - since)
        save_when_due(training)
        ending = honour_requests(training)
        if ending:
            finish(training, ending, time.monotonic() - began)
            return
    finish(training, "completed", time.monotonic() - began)


def rehearse(training: Training) -> None:
    """Try the largest batch of a long run twice, so that memory that runs out does so now and not in hours.

    Its gradients are thrown away. Where all pictures have one size the first step is as large.
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
    """One optimizer update over the step's samples; gives back mean loss and gradient norm before clipping.

    Each process takes every n-th sample. Losses are divided by the whole step's sample count, and gradients are
    summed over processes, so neither batch shape nor process count changes the update.
    """
    accelerator, config = training.accelerator, training.config
    samples = samples_of_step(step, training.plan, training.data, config.dataset, config.model.seed)
    mine = range(accelerator.process_index, len(samples), accelerator.num_processes)
    sizes = [training.data.size(sample) for sample in samples]
    total = torch.zeros((), device=accelerator.device)
    for places in micro_batches(mine, sizes, config.dataset.batch_size):
        # Dropout draws from the global generator: seeded like a sample that no step has, not like this one's noise
        torch.manual_seed(sample_rng(config.model.seed, step, -1 - places[0]).initial_seed())
        total += learn(training, [samples[place] for place in places], step, len(samples))
    parameters = training.adapter.parameters()
    sum_gradients(accelerator, parameters)
    norm = accelerator.clip_grad_norm_(parameters, config.optimizer.clip_norm or float("inf"))
    training.optimizer.step()
    training.optimizer.zero_grad()
    whole = cast("Tensor", accelerator.reduce(total, "sum"))
    loss, grad_norm = torch.stack([whole, cast("Tensor", norm).to(whole)]).tolist()  # one wait for the device
    return loss, 0.0 if accelerator.optimizer_step_was_skipped else grad_norm


def learn(training: Training, chosen: list[Sample], step: int, of: int) -> Tensor:
    """Add these samples' gradients, of a step of so many; gives back their share of its mean loss."""
    rng = [sample_rng(training.config.model.seed, step, sample.index) for sample in chosen]
    with training.accelerator.autocast():
        batch = batch_of(training, chosen)
        losses = training_loss(training.family.predict, training.base_prediction, batch, training.schedule, rng)
    loss = losses.sum() / of
    training.accelerator.backward(loss)
    return loss.detach()


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
        uncaptioned=torch.tensor([not sample.caption for sample in samples], device=device),
        drawn=torch.tensor([sample.drawn for sample in samples], device=device) if training.data.drawn else None,
        mask=masks_of(encoded),
    )


def prepare(run: RunFolder, log: EventLog, ladder: Ladder) -> Training:
    """Load the base model, encode data and captions once, attach the adapter."""
    started = time.time()
    config = run.config()
    items, problems = pictures_of(config.dataset)
    for problem in problems:
        log.write(events.Warned(code=problem.code, message=problem.message, hint=problem.hint))
    accelerator, dtype = make_accelerator(config.model)
    room = min(everywhere(accelerator, free_bytes(accelerator.device)))  # all of them save the same
    log.write(events.Phase(name="load", done=0, total=1))
    with accelerator.local_main_process_first():  # fetched by the one that can tell of it
        model = chosen_model(config, _phase_reporter(log, "download"))
    config = ladder.fit(model, accelerator.device, dtype, room, log)
    family = load_family(config, accelerator.device, dtype)
    schedule = make_schedule(family.noise, config.objective)

    drawn = class_prompts(items, config.dataset, config.model.seed)
    captions = [caption for item in items for caption in captions_of(item, config.dataset, config.model.seed)]
    prompts = preview_prompts(config, [first_caption(item, config.dataset, config.model.seed) for item in items])
    progress, writes = _phase_reporter(log, "encode"), accelerator.is_local_main_process
    # The other processes then read what the first has made
    with accelerator.local_main_process_first(), ReadAhead(family.unet_files) as ahead:
        cache = TensorCache(run.home.cache / family.spec.name, writes, missed=ahead.start)
        known = [*captions, *prompts, *drawn, ""]
        # Before the pictures, which then have the text encoders' memory
        text = learn_text(family, config, known, dtype=dtype, cache=cache, progress=progress)
        data = encode_dataset(items, family, config.dataset, dtype=dtype, cache=cache, progress=progress)
        if ladder.tiled:
            family.draw_in_tiles()
        if drawn:
            told = {"drawing": _phase_reporter(log, "protect"), "encoding": progress}
            data = Protector(config, family, text, accelerator).add(data, drawn, dtype=dtype, cache=cache, **told)
        put_away(family, config)
        cache.trim(config.dataset.cache_limit)
    for problem in unreadable(data.broken):
        log.write(events.Warned(code=problem.code, message=problem.message, hint=problem.hint))
    weights = [item.weight for item in data.items[:: 1 + len(config.dataset.further_resolutions)]]
    adapter = add_adapter(family, config)
    optimizer = accelerator.prepare(make_optimizer(adapter, config.optimizer))
    board = PreviewBoard(run, log, Painter(config, family, text, prompts, accelerator))
    return Training(
        run=run,
        log=log,
        config=config,
        accelerator=accelerator,
        precision=next(name for name, value in DTYPES.items() if value == dtype),
        family=family,
        data=data,
        inputs=inputs_of(config, model.path, data),
        text=text,
        board=board,
        plan=plan(len(weights), config.dataset, weights),
        schedule=schedule,
        adapter=adapter,
        optimizer=optimizer,
        started=started,
    )


def _phase_reporter(log: EventLog, name: Literal["download", "encode", "protect"]) -> Callable[[int, int], None]:
    def _report(done: int, total: int) -> None:
        log.write(events.Phase(name=name, done=done, total=total))

    return _report


def state_of(training: Training) -> State:
    """What a checkpoint at this point records."""
    scaler = training.accelerator.scaler
    return State(
        step=training.step,
        dataset=training.data.fingerprint(),
        total_views=training.plan.total_views,
        effective_batch=training.plan.effective_batch,
        gradient_scaler=scaler.state_dict() if scaler is not None else None,
        inputs=training.inputs,
    )


def resume(training: Training) -> int:
    """Continue from the newest checkpoint, if there is one, and say that the run starts; gives back the first step."""
    expected = state_of(training)
    check_alike(training.accelerator, "pictures, masks or captions (by digest)", int(expected.dataset[:8], 16))
    state = load_checkpoint(training.run.checkpoints, training.adapter, training.optimizer, expected, training.log)
    check_alike(training.accelerator, "checkpoints (by step)", state.step if state else 0)
    if state is not None:
        training.step = training.saved = state.step
        if training.accelerator.scaler is not None and state.gradient_scaler is not None:
            training.accelerator.scaler.load_state_dict(state.gradient_scaler)
    elif training.config.adapter.start_from:
        start_from(training.adapter, training.config.adapter, training.log)
    device, processes = training.accelerator.device, training.accelerator.num_processes
    several = f" x{processes}" if processes > 1 else ""
    training.log.write(
        events.RunStarted(
            family=training.family.spec.name,
            base_model=training.config.model.base_model,
            steps_total=training.plan.steps,
            resumed_at=training.step,
            device=f"{device.type} {training.precision}{several}",
            memory_gib=memory_gib(device),
            versions=_versions(),
        )
    )
    if training.family.labels.note and training.step == 0:
        note = training.family.labels.note
        training.log.write(events.Warned(code="fits_only_its_model", message=note, hint="Good for trying things out."))
    training.log.write(events.Phase(name="train", done=training.step, total=training.plan.steps))
    return training.step


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "diffusers", "transformers", "peft", "accelerate")}


def report_step(training: Training, loss: float, lr: float, grad_norm: float, seconds: float) -> None:
    """One line for the step just done."""
    training.log.write(
        events.Step(
            step=training.step,
            epoch=round(training.plan.passes(training.step), 4),
            loss=loss,
            lr=lr,
            grad_norm=grad_norm,
            seconds=round(seconds, 4),
            memory_gib=round(memory_gib(training.accelerator.device), 3),
        )
    )
    jump = training.pace.jumped(seconds)
    if jump and nearly_full(training.accelerator.device):
        training.log.write(
            events.Warned(
                code="memory_spills",
                message=f"Steps take {jump[1]:.1f} s instead of {jump[0]:.1f}, and memory is full: "
                "the system probably swaps.",
                hint="Close other programs, or stop and start again with a smaller --memory-limit.",
            )
        )


def save_when_due(training: Training, again: bool = False) -> None:
    """Checkpoint, LoRA file and previews at their intervals; the end of the run has its own.

    Args:
        training: It, after a step.
        again: It goes on from that step: what a kill after the checkpoint kept from being made is made now.
    """
    config, step, steps = training.config, training.step, training.plan.steps
    if step == steps:
        return
    if due(step, steps, config.output.checkpoint_every, DEFAULT_CHECKPOINTS):
        checkpoint(training)
    if due(step, steps, 0, config.output.files):
        write_lora(training, f"{config.output.name}-{step:06}")
    if due(step, steps, config.preview.every, DEFAULT_PREVIEWS):
        preview(training, again)


def checkpoint(training: Training) -> None:
    """Save a resumable state, by the first process alone."""
    if training.saved == training.step:
        return
    training.saved = training.step
    if training.accelerator.is_main_process:
        keep = training.config.output.keep_checkpoints
        target = save_checkpoint(
            training.run.checkpoints, training.adapter, training.optimizer, state_of(training), keep
        )
        training.log.write(events.Checkpoint(step=training.step, folder=f"checkpoints/{target.name}"))
    training.accelerator.wait_for_everyone()


def preview(training: Training, again: bool = False) -> None:
    """Draw the preview prompts with the adapter as it is now; if that may have been done, those that are missing."""
    if training.accelerator.is_main_process and not (again and training.board.has(training.step)):
        training.adapter.use_dropout(wanted=False)
        training.board.draw(training.step)
        training.adapter.use_dropout(wanted=True)
    training.accelerator.wait_for_everyone()


def honour_requests(training: Training) -> str:
    """Do what the control files ask; gives back "stopped" or "paused" if the run is to end now."""
    if _asked(training, "save"):
        checkpoint(training)
        write_lora(training, f"{training.config.output.name}-{training.step:06}")
    if _asked(training, "sample"):
        preview(training)
    if _asked(training, "stop"):
        return "stopped"
    return "paused" if _asked(training, "pause") else ""


def _asked(training: Training, what: str) -> bool:
    """Whether the main process found a request; all processes get the same answer."""
    asked = training.accelerator.is_main_process and training.run.take_request(what)  # type: ignore[arg-type]
    return any(everywhere(training.accelerator, asked))


def finish(training: Training, reason: str, seconds: float) -> None:
    """Last checkpoint, LoRA file, previews and strip, then the event that ends the run; a pause only saves."""
    name = training.config.output.name
    checkpoint(training)
    if reason == "completed":
        write_lora(training, name)
        preview(training)
        write_sidecars(training)
        draw_strip(training, name)
    elif reason == "stopped":
        write_lora(training, f"{name}-{training.step:06}")
        preview(training)
        draw_strip(training, f"{name}-{training.step:06}")
    training.log.write(events.RunFinished(reason=reason, step=training.step, seconds=seconds))  # type: ignore[arg-type]
