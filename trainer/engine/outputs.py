"""What a run keeps on its way and at its end: resumable states, LoRA files, previews."""

import io
from contextlib import suppress

from PIL import Image

from trainer.contract import events
from trainer.contract.errors import NonFiniteLoss
from trainer.contract.files import atomic_write
from trainer.contract.ours import read_plain
from trainer.contract.settings.config import TrainConfig
from trainer.engine.adapters import metadata
from trainer.engine.adapters.lora_file import Exported, export, known, sidecar
from trainer.engine.checkpoints import State, load_checkpoint, save_checkpoint
from trainer.engine.state import Training
from trainer.engine.watch.nonfinite import cause_of, sound
from trainer.planning.preview_schedule import DEFAULT_PREVIEWS, due
from trainer.runs.errors import CheckpointsDamaged

DEFAULT_CHECKPOINTS = 10


def state_of(training: Training) -> State:
    """What a checkpoint at this point records."""
    scaler = training.accelerator.scaler
    return State(
        step=training.step,
        dataset=training.data.fingerprint(),
        total_views=training.plan.total_views,
        effective_batch=training.plan.effective_batch,
        gradient_scaler=scaler.state_dict() if scaler is not None else None,
        rate=training.recovery.rate,
        in_a_row=training.recovery.in_a_row,
        inputs=training.inputs,
    )


def lora_stem(training: Training, rate: float | None = None) -> str:
    """What a LoRA file on the way is called; one from before the run went back keeps its name, and is another.

    Args:
        training: It, after so many updates.
        rate: Share of the learning rate with which it came there, if not the present one.
    """
    stem = f"{training.config.output.name}-{training.step:06}"
    return f"{stem}-half-rate" if (rate or training.recovery.rate) < 1 else stem


def save_when_due(training: Training, again: bool = False) -> None:
    """Checkpoint, LoRA file and previews at their intervals; the end of the run has its own.

    Args:
        training: It, after a step.
        again: The run has just resumed at that step: outputs that a kill after the checkpoint prevented are made now.
    """
    config, step, steps = training.config, training.step, training.plan.steps
    if step == steps or training.recovery.in_a_row:  # what is gone back to should be good
        return
    if due(step, steps, config.output.checkpoint_every, DEFAULT_CHECKPOINTS):
        checkpoint(training)
    if due(step, steps, 0, config.output.files):
        watch_weights(training)
        write_lora(training, lora_stem(training))
    if due(step, steps, config.preview.every, DEFAULT_PREVIEWS):
        preview(training, again)


def checkpoint(training: Training) -> None:
    """Save a resumable state, by the first process alone."""
    if training.saved == training.step:
        return
    watch_weights(training)
    training.saved = training.step
    if training.accelerator.is_main_process:
        keep = training.config.output.keep_checkpoints
        target = save_checkpoint(
            training.run.checkpoints, training.adapter, training.optimizer, state_of(training), keep
        )
        training.log.write(events.Checkpoint(step=training.step, folder=f"checkpoints/{target.name}"))
    training.accelerator.wait_for_everyone()


def keep_last_good(training: Training) -> None:
    """Write the LoRA of the newest checkpoint, if there is one that is whole."""
    state = None
    with suppress(CheckpointsDamaged):
        state = load_checkpoint(training.run.checkpoints, training.adapter, training.optimizer, state_of(training))
    if state is not None:
        training.step = state.step
        write_lora(training, lora_stem(training, state.rate))


def watch_weights(training: Training) -> None:
    """Nothing is written of weights that are not finite.

    Raises:
        NonFiniteLoss: One is not.
    """
    if not sound(training.adapter.parameters()):
        cause = cause_of([], [], training.precision)
        raise NonFiniteLoss("weights are no numbers", training.step, training.optimizer.param_groups[0]["lr"], cause)


def preview(training: Training, again: bool = False) -> None:
    """Generate the preview prompts with the current adapter; with `again` only where they are missing."""
    if training.accelerator.is_main_process and not (again and training.board.has(training.step)):
        training.adapter.use_dropout(wanted=False)
        training.board.generate(training.step)
        training.adapter.use_dropout(wanted=True)
    training.accelerator.wait_for_everyone()


def finish(training: Training, reason: str, seconds: float) -> None:
    """Last checkpoint, LoRA file, previews and strip, then the event that ends the run; a pause only saves.

    A run that is "ended", by the system, has seconds left: it is stopped without previews.
    """
    name = training.config.output.name
    checkpoint(training)
    if reason == "completed":
        write_lora(training, name)
        preview(training)
        write_sidecars(training)
        generate_strip(training, name)
    elif reason in ("stopped", "ended"):
        name = lora_stem(training)
        write_lora(training, name)
    if reason == "stopped":
        preview(training)
        generate_strip(training, name)
    by_system = reason == "ended"
    told = "stopped" if by_system else reason
    training.log.write(events.RunFinished(reason=told, step=training.step, seconds=seconds, by_system=by_system))  # type: ignore[arg-type]


def generate_strip(training: Training, stem: str) -> None:
    """Generate the last LoRA file's strength strip; a request to stop or pause skips it."""
    if not training.accelerator.is_main_process:
        return

    def _keep_going(done: int, total: int) -> bool:
        training.log.write(events.Phase(name="preview", done=done, total=total))
        return not any(training.run.take_request(what) for what in ("stop", "end", "pause"))

    training.adapter.use_dropout(wanted=False)
    training.board.generate_strip(training.adapter, f"{stem}.safetensors", _keep_going)


def write_lora(training: Training, stem: str) -> None:
    """Write and verify a LoRA file; one of that name from before a resume is kept, and logged if it was not."""
    if not training.accelerator.is_main_process:
        return
    path = training.run.path / f"{stem}.safetensors"
    if path.exists():
        if path.name not in {lora.file for lora in training.run.view().loras}:
            _report(training, known(path))
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
    _report(training, export(path, training.adapter, config.output.dtype, metadata.file_metadata(facts)))


def _report(training: Training, made: Exported) -> None:
    training.log.write(events.Lora(step=training.step, file=made.path.name, bytes=made.bytes, sha256=made.sha256))


def write_sidecars(training: Training) -> None:
    """The files WebUIs show beside a LoRA: `X.json` and `X.preview.png`."""
    if not training.accelerator.is_main_process:
        return
    config = training.config
    path = training.run.path / f"{config.output.name}.safetensors"
    sidecar(path, config.dataset.trigger_word, training.family.labels)
    last = sorted(training.run.samples.glob(f"{training.step:06}-0.png"))
    for image in last:
        atomic_write(path.with_suffix(".preview.png"), cover(config, read_plain(image)))


def cover(config: TrainConfig, preview: bytes) -> bytes:
    """A preview as it goes with the LoRA file to others: its prompt stays in it only if the user wrote it for that.

    Without prompts of the user's own, those of previews are captions, sentences with names in them too.
    """
    if config.preview.prompts or config.output.tags == "all":
        return preview
    bare = io.BytesIO()
    with Image.open(io.BytesIO(preview)) as image:
        image.save(bare, "PNG")  # without its texts
    return bare.getvalue()
