"""What a run gives its user: LoRA files, each with what belongs beside it."""

from __future__ import annotations

from trainer.contract import events
from trainer.contract.home import atomic_write
from trainer.engine.adapters import metadata
from trainer.engine.adapters.lora_file import Exported, export, known, sidecar
from trainer.engine.state import Training


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
    """Write and prove a LoRA file; one of that name, from before a resume, is kept, and told if it was not."""
    if not training.accelerator.is_main_process:
        return
    path = training.run.path / f"{stem}.safetensors"
    if path.exists():
        if path.name not in {lora.file for lora in training.run.view().loras}:
            _tell(training, known(path))
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
    _tell(training, export(path, training.adapter, config.output.dtype, metadata.file_metadata(facts)))


def _tell(training: Training, made: Exported) -> None:
    training.log.write(events.Lora(step=training.step, file=made.path.name, bytes=made.bytes, sha256=made.sha256))


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
