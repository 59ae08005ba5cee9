"""What masks and prior preservation do, in figures, on pocket: `python tests/benchmarks/keeping.py masks|protect`.

masks: the right half of every image is covered by the same stripes, which nobody wants to learn, and masks leave them
out. How far the prediction error falls on the wanted half and on the stripes, with and without masks.

protect: the character demo, for the same steps. How far predictions for held-out base images and their captions move
from the base model's own, and how far the error on the character's images falls; without protection, with it, and as
in classic DreamBooth, where the drawn images' noise is the target.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

import torch
from PIL import Image
from safetensors import safe_open

from trainer.contract.events import EventLog
from trainer.contract.home import POCKET, Home
from trainer.contract.presets import FOLDER, load_preset, overlay
from trainer.engine import loop, prepare
from trainer.engine.data.batches import Sample
from trainer.engine.objectives import Batch, sample_rng
from trainer.engine.optim import learning_rate_factor, set_learning_rate
from trainer.engine.prepare import prepare as prepared
from trainer.engine.savings import Ladder
from trainer.planning.ready import settled
from trainer.runs.folder import RunFolder

DEMO = ROOT / "assets" / "demo"
STEPS = 100
ROUNDS = 4  # draws of noise and timestep for each image that is measured
HELD_OUT = 32
DRAWN = 8


@dataclass(frozen=True)
class Asked:
    """One fixed question to the model."""

    noisy: torch.Tensor
    t: torch.Tensor
    right: torch.Tensor  # the answer
    conditioning: object


def trained(folder: Path, preset: str, changes: dict, steps: int = STEPS, classic: bool = False):
    """A training after these steps, and what was asked before and after: (training, ask)."""
    flags = {
        "model": {"device": "cpu"},
        "dataset": {"batch_size": 4},
        "optimizer": {"learning_rate": 5e-4},
        "preview": {"prompts": ["cat"], "steps": 10},
    }
    for section, values in changes.items():
        flags.setdefault(section, {}).update(values)
    config = settled(overlay({"preset": load_preset(preset, FOLDER).values, "flags": flags})[0])
    run = RunFolder.create(Home(folder), config)
    training = prepared(run, EventLog(run.events_file).__enter__(), Ladder(config))
    if classic:
        whole = loop.batch_of
        loop.batch_of = lambda *of: replace(whole(*of), is_class_image=None)
    yield training
    for step in range(steps):
        set_learning_rate(training.optimizer, learning_rate_factor(step, steps, config.optimizer))
        loop.update(training, step)
    yield training


def questions(training, mean: torch.Tensor, conditioning) -> list[Asked]:
    """The same noise and timesteps for whoever is asked."""
    asked = []
    for number in range(ROUNDS):
        generator = sample_rng(99, number, 0)
        noise = torch.randn(mean.shape, generator=generator)
        t = torch.randint(0, 1000, (len(mean),), generator=generator)
        right = training.schedule.target(mean, noise, t)
        asked.append(Asked(training.schedule.add_noise(mean, noise, t), t, right, conditioning))
    return asked


@torch.no_grad()
def answers(training, asked: list[Asked]) -> torch.Tensor:
    """The model's predictions, (rounds, N, C, h, w)."""
    with training.accelerator.autocast():
        return torch.stack([training.family.predict(one.noisy, one.t, one.conditioning).float() for one in asked])


def errors(training, asked: list[Asked], right: torch.Tensor) -> torch.Tensor:
    """Squared errors of the predictions, weighted by timestep as they are in training."""
    weight = torch.stack([training.schedule.weight(one.t) for one in asked])
    return (answers(training, asked) - right).square() * weight[..., None, None, None]


def own(training) -> tuple[list[Asked], torch.Tensor]:
    """Questions about the training's own images, and the right answers."""
    items = range(len(training.data.items))
    captions = prepare.first_caption
    samples = [
        Sample(0, i, mirrored=False, caption=captions(training.data.items[i], training.config.dataset, 42))
        for i in items
    ]
    batch: Batch = loop.batch_of(training, samples)
    asked = questions(training, batch.mean, batch.conditioning)
    return asked, torch.stack([one.right for one in asked])


def masks(folder: Path, arms: list[str]) -> None:
    """Print how the error falls on both halves."""
    images = folder / "pictures"
    images.mkdir()
    for path in sorted((DEMO / "style" / "train").glob("*.png")):
        image = Image.open(path).convert("RGBA")
        ground = Image.new("RGB", image.size, "white")
        ground.paste(image, mask=image)
        stripes = Image.new("RGB", image.size, "magenta")
        for top in range(0, image.height, image.height // 4):
            stripes.paste("green", (0, top, image.width, top + image.height // 8))
        half = (image.width // 2, 0, image.width, image.height)
        ground.paste(stripes.crop(half), half)
        ground.save(images / path.name)
        mask = Image.new("L", image.size, "white")
        mask.paste("black", half)
        mask.save(images / f"{path.stem}.mask.png")
        (images / f"{path.stem}.txt").write_text(path.with_suffix(".txt").read_text())
    arms = arms or ["keep-0", "keep-0.2", "keep-1", "keep-2", "none"]
    for words, keep in (("keep-0", 0.0), ("keep-0.2", 0.2), ("keep-1", 1.0), ("keep-2", 2.0), ("none", None)):
        if words not in arms:
            continue
        changes = {
            "dataset": {"images": str(images)},
            "objective": {"mask_keep": keep or 0.0, "keep_from_timestep": 1000, "keep_uncaptioned": False},
        }
        for path in images.glob("*.mask.png") if keep is None else ():
            path.rename(path.with_suffix(".unused"))
        with tempfile.TemporaryDirectory() as home:
            stages = trained(Path(home), "pocket-style", changes)
            training = next(stages)
            asked, right = own(training)
            before, had = errors(training, asked, right), answers(training, asked)
            after = errors(next(stages), asked, right)
            moved = errors(training, asked, had)
            middle = before.shape[-1] // 2
            (inside, near), (outside, far) = (
                (float(after[..., half].mean() / before[..., half].mean() - 1), float(moved[..., half].mean()))
                for half in (slice(None, middle - 1), slice(middle + 1, None))
            )
            sys.stdout.write(
                f"{words}: error {inside:+.0%} on the wanted half, {outside:+.0%} on the stripes; "
                f"moved from the base model by {near:.4f} and {far:.4f}\n"
            )
            sys.stdout.flush()


def protect(_folder: Path, wanted: list[str]) -> None:
    """Print drift and what was learnt."""
    with safe_open(POCKET / "base-latents.safetensors", "pt") as file:
        captions = json.loads(file.metadata()["captions"])
        latents = file.get_tensor("latents").float()
    chosen = list(range(0, len(captions), max(len(captions) // HELD_OUT, 1)))[:HELD_OUT]
    on = {"prior_preservation": True, "class_images": DRAWN}
    arms = {"without": {}, "protected": on, "classic": on}
    for words, change in arms.items():
        if wanted and words not in wanted:
            continue
        with tempfile.TemporaryDirectory() as home:
            changes = {"dataset": change, "adapter": {"text_encoder": False}}
            stages = trained(Path(home), "pocket-character", changes, classic=words == "classic")
            with _more_captions([captions[i] for i in chosen]):
                training = next(stages)
            asked, right = own(training)
            base = questions(
                training, latents[chosen], training.text([captions[i] for i in chosen], torch.device("cpu"))
            )
            error, had = float(errors(training, asked, right).mean()), answers(training, base)
            next(stages)
            moved = float((answers(training, base) - had).square().mean())
            learnt = float(errors(training, asked, right).mean()) / error - 1
            sys.stdout.write(f"{words}: base prompts moved by {moved:.4f}, error on the character {learnt:+.0%}\n")
            sys.stdout.flush()


class _more_captions:  # noqa: N801 - used as a context
    """Further captions that a training learns to ask with."""

    def __init__(self, captions: list[str]) -> None:
        self._captions, self._known = captions, prepare.learn_text

    def __enter__(self) -> None:
        prepare.learn_text = lambda family, config, captions, **how: self._known(
            family, config, [*captions, *self._captions], **how
        )

    def __exit__(self, *_: object) -> None:
        prepare.learn_text = self._known


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=["masks", "protect"])
    parser.add_argument("arms", nargs="*")
    wished = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        {"masks": masks, "protect": protect}[wished.which](Path(made), wished.arms)
