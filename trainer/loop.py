"""The training: one loop for every family, readable from top to bottom."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import torch
from accelerate import Accelerator
from torch import Tensor

from trainer import metadata
from trainer.adapters import Adapter
from trainer.assembly import add_adapter, learn_text, start_from
from trainer.checkpoints import State, load_checkpoint, save_checkpoint
from trainer.contract import events
from trainer.contract.buckets import Plan, micro_batches, plan
from trainer.contract.captions import pictures_of, with_trigger
from trainer.contract.errors import NonFiniteLoss
from trainer.contract.events import EventLog
from trainer.contract.home import atomic_write
from trainer.contract.runs import RunFolder
from trainer.contract.settings import TrainConfig
from trainer.data.batches import EncodedDataset, Sample, TextStates, captions_of, encode_dataset, samples_of_step
from trainer.data.cache import TensorCache
from trainer.device import DTYPES, make_accelerator, memory_gib
from trainer.export import export, sidecar
from trainer.families.base import Conditioning, Family
from trainer.families.load import load_family
from trainer.objectives import Batch, NoiseSchedule, make_schedule, sample_rng, training_loss
from trainer.optim import learning_rate_factor, make_optimizer, set_learning_rate
from trainer.previews import Painter, PreviewBoard, preview_prompts

DEFAULT_PREVIEWS = 5
DEFAULT_CHECKPOINTS = 10


@dataclass
class Training:
    """Everything a run holds while it trains."""

    run: RunFolder
    log: EventLog
    config: TrainConfig
    accelerator: Accelerator
    precision: str
    family: Family
    data: EncodedDataset
    text: TextStates
    board: PreviewBoard
    plan: Plan
    schedule: NoiseSchedule
    adapter: Adapter
    optimizer: torch.optim.Optimizer
    started: float
    step: int = 0  # updates done
    saved: int = -1  # the step of the newest checkpoint

    def base_prediction(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """What the base model would answer without the adapter."""
        with self.adapter.switched_off():
            return self.family.predict(noisy, t, conditioning)


def train(run: RunFolder, log: EventLog) -> None:
    """Train the run in `run` to its end, or until it is asked to stop or pause.

    Raises:
        TrainerError: Anything the user can act on; what was saved before stays.
    """
    began = time.monotonic()
    training = prepare(run, log)
    first = resume(training)
    if first == 0:
        preview(training)
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


def update(training: Training, step: int) -> tuple[float, float]:
    """One optimizer update over the step's samples; gives back mean loss and gradient norm before clipping.

    Each process takes every n-th sample. Losses are divided by the whole step's sample count, and gradients are
    summed over processes, so neither batch shape nor process count changes the update.
    """
    accelerator, config = training.accelerator, training.config
    samples = samples_of_step(step, training.plan, training.data, config.dataset, config.model.seed)
    mine = range(accelerator.process_index, len(samples), accelerator.num_processes)
    sizes = [training.data.crops[sample.item].bucket for sample in samples]
    total = torch.zeros((), device=accelerator.device)
    for places in micro_batches(mine, sizes, config.dataset.batch_size):
        chosen = [samples[place] for place in places]
        rng = [sample_rng(config.model.seed, step, sample.index) for sample in chosen]
        # Dropout draws from the global generator: seeded like a sample that no step has, not like this one's noise
        torch.manual_seed(sample_rng(config.model.seed, step, -1 - places[0]).initial_seed())
        with accelerator.autocast():
            batch = batch_of(training, chosen)
            losses = training_loss(training.family.predict, training.base_prediction, batch, training.schedule, rng)
        loss = losses.sum() / len(samples)
        accelerator.backward(loss)
        total += loss.detach()
    parameters = training.adapter.parameters()
    sum_gradients(accelerator, parameters)
    limit = config.optimizer.clip_norm or float("inf")
    norm = accelerator.clip_grad_norm_(parameters, limit)
    training.optimizer.step()
    training.optimizer.zero_grad()
    whole = cast("Tensor", accelerator.reduce(total, "sum"))
    return float(whole), float(cast("Tensor", norm)) if not accelerator.optimizer_step_was_skipped else 0.0


def sum_gradients(accelerator: Accelerator, parameters: list[torch.nn.Parameter]) -> None:
    """Add up the processes' gradients as one flat tensor: a LoRA's are small, and no wrapper module is needed."""
    if accelerator.num_processes == 1:
        return
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    summed = cast("Tensor", accelerator.reduce(torch.cat([g.flatten() for g in grads]), "sum"))
    for parameter, grad in zip(parameters, torch.split(summed, [p.numel() for p in parameters]), strict=True):
        parameter.grad = grad.view_as(parameter)


def batch_of(training: Training, samples: list[Sample]) -> Batch:
    """The samples' tensors on the device, in one batch."""
    device = training.accelerator.device
    encoded = [training.data.posteriors[sample.item, sample.mirrored] for sample in samples]
    return Batch(
        mean=torch.stack([e.mean for e in encoded]).to(device),
        std=torch.stack([e.std for e in encoded]).to(device),
        conditioning=training.text([sample.caption for sample in samples], device).framed(
            torch.tensor([training.data.frame(sample) for sample in samples], device=device)
        ),
        uncaptioned=torch.tensor([not sample.caption for sample in samples], device=device),
    )


def prepare(run: RunFolder, log: EventLog) -> Training:
    """Load the base model, encode data and captions once, attach the adapter."""
    started = time.time()
    config = run.config()
    items, problems = pictures_of(config.dataset)
    for problem in problems:
        log.write(events.Warned(code=problem.code, message=problem.message, hint=problem.hint))
    accelerator, dtype = make_accelerator(config.model)
    log.write(events.Phase(name="load", done=0, total=1))
    family = load_family(config, accelerator.device, dtype, _phase_reporter(log, "download"))
    schedule = make_schedule(family.noise, config.objective)

    made = plan(len(items), config.dataset)
    cache = TensorCache(run.home.cache / family.spec.name, writes=accelerator.is_main_process)
    progress = _phase_reporter(log, "encode")
    data = encode_dataset(items, family, config.dataset, dtype=dtype, cache=cache, progress=progress)
    captions = [caption for item in items for caption in captions_of(item, config.dataset, config.model.seed)]
    prompts = preview_prompts(config, [with_trigger(item.caption, config.dataset.trigger_word) for item in items])
    text = learn_text(family, config, [*captions, *prompts, ""], dtype=dtype, cache=cache, progress=progress)
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
        text=text,
        board=board,
        plan=made,
        schedule=schedule,
        adapter=adapter,
        optimizer=optimizer,
        started=started,
    )


def _phase_reporter(log: EventLog, name: Literal["download", "encode"]) -> Callable[[int, int], None]:
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
    )


def resume(training: Training) -> int:
    """Continue from the newest checkpoint, if there is one, and say that the run starts; gives back the first step."""
    state = load_checkpoint(training.run.checkpoints, training.adapter, training.optimizer, state_of(training))
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
            epoch=round(training.step * training.plan.effective_batch / training.plan.pictures, 4),
            loss=loss,
            lr=lr,
            grad_norm=grad_norm,
            seconds=round(seconds, 4),
            memory_gib=round(memory_gib(training.accelerator.device), 3),
        )
    )


def due(step: int, steps: int, every: int, default_count: int) -> bool:
    """Whether something falls due after `step` of `steps`: each `every`, or `default_count` times evenly spaced."""
    if every:
        return step % every == 0
    marks = {round(steps * i / default_count) for i in range(1, default_count + 1)}
    return step in marks


def save_when_due(training: Training) -> None:
    """Checkpoint, LoRA file and previews at their intervals; the end of the run has its own."""
    config, step, steps = training.config, training.step, training.plan.steps
    if step == steps:
        return
    if due(step, steps, config.output.checkpoint_every, DEFAULT_CHECKPOINTS):
        checkpoint(training)
    if due(step, steps, 0, config.output.files):
        write_lora(training, f"{config.output.name}-{step:06}")
    if due(step, steps, config.preview.every, DEFAULT_PREVIEWS):
        preview(training)


def checkpoint(training: Training) -> None:
    """Save a resumable state, once per machine."""
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


def preview(training: Training) -> None:
    """Draw the preview prompts with the adapter as it is now."""
    if training.accelerator.is_main_process:
        training.adapter.use_dropout(wanted=False)
        training.board.draw(training.step)
        training.adapter.use_dropout(wanted=True)
    training.accelerator.wait_for_everyone()


def draw_strip(training: Training, stem: str) -> None:
    """Draw the last LoRA file at several strengths; being asked to end meanwhile leaves that out."""
    if not training.accelerator.is_main_process:
        return

    def _go_on(done: int, total: int) -> bool:
        training.log.write(events.Phase(name="preview", done=done, total=total))
        return not (training.run.take_request("stop") or training.run.take_request("pause"))

    training.adapter.use_dropout(wanted=False)
    training.board.draw_strip(training.adapter, f"{stem}.safetensors", _go_on)


def write_lora(training: Training, stem: str) -> None:
    """Write and prove a LoRA file; one of that name and step, from before a resume, is kept."""
    if not training.accelerator.is_main_process:
        return
    path = training.run.path / f"{stem}.safetensors"
    if path.exists():
        return
    config = training.config
    facts = metadata.TrainingFacts(
        config,
        training.plan,
        training.data,
        training.family.labels,
        training.family.spec.clip_skip,
        training.schedule,
        training.precision,
        training.started,
        training.step,
    )
    made = export(path, training.adapter, config.output.dtype, metadata.file_metadata(facts))
    training.log.write(events.Lora(step=training.step, file=path.name, bytes=made.bytes, sha256=made.sha256))


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
    accelerator = training.accelerator
    asked = accelerator.is_main_process and training.run.take_request(what)  # type: ignore[arg-type]
    if accelerator.num_processes == 1:
        return asked
    flag = torch.tensor(float(asked), device=accelerator.device)
    return bool(cast("Tensor", accelerator.reduce(flag, "sum")) > 0)


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


def write_sidecars(training: Training) -> None:
    """The files WebUIs show beside a LoRA: `X.json` and `X.preview.png`."""
    if not training.accelerator.is_main_process:
        return
    config = training.config
    path = training.run.path / f"{config.output.name}.safetensors"
    sidecar(path, config.dataset.trigger_word, training.family.labels)
    last = sorted(training.run.samples.glob(f"{training.step:06}-0.png"))
    for picture in last:
        atomic_write(path.with_suffix(".preview.png"), picture.read_bytes())
