"""Previews: the same prompts and seeds at step 0 and on, as PNG files that carry their generation parameters."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from PIL import Image, PngImagePlugin

from trainer.contract.errors import isolated
from trainer.contract.events import EventLog, Sample, Warned
from trainer.contract.home import atomic_write
from trainer.contract.runs import RunFolder
from trainer.contract.settings import TrainConfig
from trainer.data.batches import TextStates
from trainer.families.base import Family, RenderOptions

MOST_DEFAULT_PROMPTS = 4


def preview_prompts(config: TrainConfig, captions: Sequence[str]) -> tuple[str, ...]:
    """The user's prompts, else the first different captions."""
    return config.preview.prompts or tuple(dict.fromkeys(captions))[:MOST_DEFAULT_PROMPTS]


def preview_options(config: TrainConfig, index: int) -> RenderOptions:
    """How preview number `index` is drawn."""
    wished = config.preview
    return RenderOptions(
        seed=wished.seed + index,
        steps=wished.steps,
        guidance_scale=wished.guidance_scale,
        width=wished.width or config.dataset.resolution,
        height=wished.height or config.dataset.resolution,
    )


@dataclass(frozen=True)
class PreviewBoard:
    """What the previews of a run are drawn with."""

    run: RunFolder
    log: EventLog
    config: TrainConfig
    family: Family
    text: TextStates
    prompts: tuple[str, ...]
    accelerator: Accelerator

    def draw(self, step: int) -> None:
        """Draw every prompt after `step` updates; a failure is a warning, and the training's chance is untouched."""
        for index, prompt in enumerate(self.prompts):
            with isolated(f"Preview {index + 1} at step {step}", self._warn):
                self._draw_one(step, index, prompt)

    @torch.no_grad()
    def _draw_one(self, step: int, index: int, prompt: str) -> None:
        options = preview_options(self.config, index)
        with self.accelerator.autocast():
            positive = self.text([prompt], self.accelerator.device)
            negative = self.text([self.config.preview.negative_prompt], self.accelerator.device)
            picture = self.family.render(positive, negative, options)
        name = f"{step:06}-{index}.png"
        atomic_write(self.run.samples / name, png(picture, self.config, prompt, options))
        self.log.write(Sample(step=step, index=index, prompt=prompt, seed=options.seed, file=f"samples/{name}"))

    def _warn(self, code: str, message: str, hint: str) -> None:
        self.log.write(Warned(code=code, message=message, hint=hint))


def png(picture: Image.Image, config: TrainConfig, prompt: str, options: RenderOptions) -> bytes:
    """A PNG with A1111-style generation parameters."""
    parameters = (
        f"{prompt}\nNegative prompt: {config.preview.negative_prompt}\n"
        f"Steps: {options.steps}, CFG scale: {options.guidance_scale:g}, Seed: {options.seed}, "
        f"Size: {options.width}x{options.height}, Lora: {config.output.name}"
    )
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", parameters)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()
