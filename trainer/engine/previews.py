"""Previews: the same prompts and seeds at step 0 and on, as PNG files with their parameters; and the strength strip."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from accelerate import Accelerator
from PIL import Image, PngImagePlugin

from trainer.contract.errors import isolated
from trainer.contract.events import EventLog, Sample, Warned
from trainer.contract.files import atomic_write
from trainer.contract.ours import check
from trainer.contract.settings.config import TrainConfig
from trainer.engine.adapters.lora import Adapter
from trainer.engine.data.batches import TextStates
from trainer.engine.families.base import Conditioning, Family, RenderOptions
from trainer.planning.preview_schedule import MOST_STRIP_PROMPTS
from trainer.runs.folder import RunFolder
from trainer.runs.sheets import STRENGTHS, strength_sheet, strip_name

TOGETHER = 512 * 512  # px generated at once: small images cost little more together, large ones would cost memory


def preview_options(config: TrainConfig, indices: Sequence[int]) -> RenderOptions:
    """Returns seeds, steps, CFG scale and size of the previews of these prompt numbers."""
    requested, (width, height) = config.preview, config.preview_size
    return RenderOptions(
        seeds=tuple(requested.seed + index for index in indices),
        steps=requested.steps,
        guidance_scale=requested.guidance_scale,
        width=width,
        height=height,
    )


@dataclass(frozen=True)
class Renderer:
    """Generates images of a run's prompts with the model as it is now."""

    config: TrainConfig
    family: Family
    text: TextStates
    prompts: tuple[str, ...]
    accelerator: Accelerator

    @torch.no_grad()
    def paint(self, *indices: int) -> list[Image.Image]:
        """Returns an image for each of these prompt numbers; a trained text encoder encodes them as it is now, too."""
        with self.accelerator.autocast():
            positive = self.text([self.prompts[index] for index in indices], self.accelerator.device)
            negative = self.text([self.config.preview.negative_prompt], self.accelerator.device)
            return self.family.render(positive, negative, preview_options(self.config, indices))

    @torch.no_grad()
    def paint_at(self, adapter: Adapter, chosen: Sequence[tuple[int, float]]) -> list[Image.Image]:
        """Returns an image for each prompt number and strength of the adapter, all generated together."""
        indices, strengths = zip(*chosen, strict=True)
        positive, negative = [], []
        with self.accelerator.autocast():
            for index, strength in chosen:
                with adapter.scaled(strength):
                    positive.append(self.text([self.prompts[index]], self.accelerator.device))
                    negative.append(self.text([self.config.preview.negative_prompt], self.accelerator.device))
            with adapter.scaled(*strengths):
                return self.family.render(
                    Conditioning.stack(positive), Conditioning.stack(negative), preview_options(self.config, indices)
                )

    @property
    def most_together(self) -> int:
        """How many images are generated together."""
        options = preview_options(self.config, ())
        return max(1, TOGETHER // (options.width * options.height))

    def groups(self) -> Iterator[range]:
        """Yields the prompt numbers in groups that are generated together."""
        for first in range(0, len(self.prompts), self.most_together):
            yield range(first, min(first + self.most_together, len(self.prompts)))


def render_strip(renderer: Renderer, adapter: Adapter, target: Path, keep_going: Callable[[int, int], bool]) -> None:
    """Write the strength strip of the adapter as it is: the first prompts, each at every strength.

    Args:
        renderer: Generates the prompts; if it has none, there is no strip.
        adapter: Without dropout.
        target: The PNG, replaced if it is there.
        keep_going: Called before images that are generated together, with the number done and the total; if it answers
            no, there is no strip.
    """
    prompts = renderer.prompts[:MOST_STRIP_PROMPTS]
    wanted = list(product(range(len(prompts)), STRENGTHS))
    rendered: list[Image.Image] = []
    while len(rendered) < len(wanted):
        if not keep_going(len(rendered), len(wanted)):
            return
        rendered += renderer.paint_at(adapter, wanted[len(rendered) :][: renderer.most_together])
    if rendered:
        atomic_write(target, strength_sheet(prompts, rendered))


@dataclass(frozen=True)
class PreviewBoard:
    """The previews of a run: generated, written to disk and logged."""

    run: RunFolder
    log: EventLog
    renderer: Renderer

    def has(self, step: int) -> bool:
        """Whether every prompt has been generated and logged after so many updates."""
        return sum(sample.step == step for sample in self.run.view().samples) >= len(self.renderer.prompts)

    def generate(self, step: int) -> None:
        """Generate every prompt after `step` updates; a failure is a warning, and random state is untouched.

        Once the run is asked to end by the system, the rest is left out.
        """
        for group in self.renderer.groups():
            if self.run.asked_for("end") is not None:
                return  # what counts then is to save in time
            numbers = f"{group.start + 1}" if len(group) == 1 else f"{group.start + 1} to {group.stop}"
            with isolated(f"Preview {numbers} at step {step}", self._warn):
                for index, image in zip(group, self.renderer.paint(*group), strict=True):
                    self._keep(step, index, image)

    def generate_strip(self, adapter: Adapter, lora_file: str, keep_going: Callable[[int, int], bool]) -> None:
        """Generate the strength strip of a LoRA file just written; a failure is a warning."""
        with isolated(f"The strength strip of {lora_file}", self._warn):
            render_strip(self.renderer, adapter, self.run.path / strip_name(lora_file), keep_going)

    def _keep(self, step: int, index: int, image: Image.Image) -> None:
        config, prompt = self.renderer.config, self.renderer.prompts[index]
        options, name = preview_options(config, [index]), f"{step:06}-{index}.png"
        check(self.run.samples, folder=True)  # it may have been put there since the start
        atomic_write(self.run.samples / name, png(image, config, prompt, options))
        self.log.write(Sample(step=step, index=index, prompt=prompt, seed=options.seeds[0], file=f"samples/{name}"))

    def _warn(self, code: str, message: str, hint: str) -> None:
        self.log.write(Warned(code=code, message=message, hint=hint))


def png(image: Image.Image, config: TrainConfig, prompt: str, options: RenderOptions) -> bytes:
    """A PNG with A1111-style generation parameters."""
    parameters = (
        f"{prompt}\nNegative prompt: {config.preview.negative_prompt}\n"
        f"Steps: {options.steps}, CFG scale: {options.guidance_scale:g}, Seed: {options.seeds[0]}, "
        f"Size: {options.width}x{options.height}, Lora: {config.output.name}"
    )
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", parameters)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()
