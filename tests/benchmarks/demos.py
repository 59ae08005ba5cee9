"""What the demo presets learn, on the demos and on styles and characters that they were not made for.

`python tests/benchmarks/demos.py style --sets demo 3d flat --seeds 5 [--checkout DIR] [flags of launch.py]`, or
`character`. Every set but the demo needs `python -m assets.pocket.build.styles` once. The images kept out of a training
are what its previews are compared with:

style: how far the previews have gone from the base model's to the real images of the style, by two judges (histograms
of pixels, and what the VAE's encoder sees), and for how many prompts the nearest concept stays the prompted one.

character: the distance of the previews to the real images of their captions, and for how many it is smaller than the
distance to the neutral face.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors import safe_open

from assets.pocket.build.style import StyleAxis
from trainer.contract.home import POCKET, Home
from trainer.dataset.buckets import Size, crop_to
from trainer.dataset.captions import Item, with_trigger
from trainer.dataset.images import load_image
from trainer.dataset.scan import scan
from trainer.engine.data.encoding import normalised, to_pixels
from trainer.runs.folder import RunFolder

SIDE = 64
TRIGGER, NEUTRAL = "mimi", "cat face"
SEEDS_EACH = 4  # previews for each of a character's few prompts
Images = list[Image.Image]


@dataclass(frozen=True)
class Pocket:
    """A checkout's built-in model, as far as it is needed to judge images."""

    checkout: Path
    vae: AutoencoderKL
    captions: list[str]
    latents: torch.Tensor  # (N, 1024), scaled

    @classmethod
    def of(cls, checkout: Path) -> Pocket:
        """The model that lies in a checkout."""
        model = checkout / POCKET.relative_to(ROOT)
        with safe_open(model / "base-latents.safetensors", "pt") as file:
            captions = json.loads(file.metadata()["captions"])
            latents = file.get_tensor("latents").float().flatten(1)
        return cls(checkout, AutoencoderKL.from_pretrained(model, subfolder="vae"), captions, latents)

    @torch.no_grad()
    def latents_of(self, images: Images) -> torch.Tensor:
        """Scaled posterior means, (N, 1024)."""
        pixels = torch.stack([to_pixels(one, crop_to(one.width, one.height, Size(SIDE, SIDE))) for one in images])
        found: torch.Tensor = self.vae.encode(normalised(pixels)).latent_dist.mean
        return (found * self.vae.config.scaling_factor).flatten(1)

    @torch.no_grad()
    def drawn(self, latents: torch.Tensor) -> Images:
        """The images of scaled latents, (N, 1024)."""
        pixels = self.vae.decode(latents.view(-1, 4, SIDE // 4, SIDE // 4) / self.vae.config.scaling_factor).sample
        shown = pixels.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy()
        return [Image.fromarray(one) for one in shown]

    def concepts_of(self, images: Images) -> list[str]:
        """The concept of the nearest base image of either style, in latent space."""
        nearest = torch.cdist(self.latents_of(images), self.latents).argmin(dim=1)
        return [self.captions[place].rsplit(",", 1)[0] for place in nearest.tolist()]

    @torch.no_grad()
    def seen(self, image: Image.Image) -> np.ndarray:
        """What the encoder's layers see of an image: mean and spread of each channel, where there is something."""
        scaled = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        hidden = torch.from_numpy(np.asarray(scaled, np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        inked = torch.nn.functional.max_pool2d((hidden.amin(1, keepdim=True) < 0.94).float(), 3, 1, 1)
        hidden, found = self.vae.encoder.conv_in(hidden), []
        for block in self.vae.encoder.down_blocks:
            for layer in block.resnets:
                hidden = layer(hidden, None)
                weight = torch.nn.functional.adaptive_max_pool2d(inked, hidden.shape[-2:])
                weight = weight / weight.sum().clamp(min=1)
                center = (hidden * weight).sum((2, 3), keepdim=True)
                spread = ((hidden - center).square() * weight).sum((2, 3)).sqrt()
                found += [center.flatten(), spread.flatten()]
            for layer in block.downsamplers or ():
                hidden = layer(hidden)
        return torch.cat(found).numpy()


def resized(images: Sequence[Path]) -> Images:
    """Real images as the model would have to generate them."""
    return [load_image(path).resize((SIDE, SIDE), Image.Resampling.LANCZOS) for path in images]


def previews(pocket: Pocket, preset: str, folder: Path, prompts: list[str], flags: list[str]) -> list[Images]:
    """Train the preset on a folder with these previews; returns those of the first step and of the last."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, str(pocket.checkout / "launch.py"), "--preset", preset, "--images", str(folder)]
        command += ["--preview.every", "1000000", *flags, "--preview.prompts", *prompts]
        environment = {**os.environ, "ATELIER_HOME": home}
        subprocess.run(command, check=True, env=environment, cwd=pocket.checkout, stdout=subprocess.DEVNULL)
        (done,) = RunFolder.all(Home(Path(home)))
        last = done.view().steps[-1].step
        names = [[f"{step:06}-{index}.png" for index in range(len(prompts))] for step in (0, last)]
        return [[load_image(done.samples / name) for name in group] for group in names]


def style(pocket: Pocket, folder: Path, flags: list[str]) -> dict[str, float]:
    """A training's figures on a style."""
    fitted, kept_out = (scan(folder / part)[0] for part in ("train", "measure"))
    prompts = [item.caption for item in kept_out]
    before, after = previews(pocket, "pocket-style", folder / "train", prompts, flags)
    own = [f"{item.caption}, noto style" for item in fitted]
    base = pocket.drawn(pocket.latents[[pocket.captions.index(caption) for caption in own]])
    there, real = (resized([item.path for item in items]) for items in (fitted, kept_out))
    axes = {"progress": StyleAxis.fit(there, base), "by the VAE": StyleAxis.fit(there, base, pocket.seen)}
    was, now = pocket.concepts_of(before), pocket.concepts_of(after)
    right = [place for place, prompt in enumerate(prompts) if was[place] == prompt]
    kept = sum(now[place] == prompts[place] for place in right) / max(len(right), 1)
    return {name: axis.progress(before, after, real) for name, axis in axes.items()} | {"kept": kept}


def character(pocket: Pocket, folder: Path, flags: list[str]) -> dict[str, float]:
    """A training's figures on a character."""
    kept_out, (neutral,) = scan(folder / "measure")[0], _of(scan(folder / "train")[0], NEUTRAL)
    prompts = [with_trigger(item.caption, TRIGGER) for item in kept_out] * SEEDS_EACH
    flags = [*flags, "--dataset.trigger_word", TRIGGER]
    found = previews(pocket, "pocket-character", folder / "train", prompts, flags)
    real = pocket.latents_of(resized([item.path for item in kept_out])).repeat(SEEDS_EACH, 1)
    other = pocket.latents_of(resized([neutral.path])).expand_as(real)
    far, near = (_apart(pocket.latents_of(images), real) for images in found)
    own = near < _apart(pocket.latents_of(found[1]), other)
    return {"before": float(far.mean()), "after": float(near.mean()), "own expression": float(own.float().mean())}


def _of(items: Sequence[Item], caption: str) -> list[Item]:
    return [item for item in items if item.caption == caption]


def _apart(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """RMS distance, (N,)."""
    return (one - other).square().mean(dim=1).sqrt()


def main(which: str, sets: list[str], seeds: int, checkout: Path, flags: list[str]) -> None:
    """Print the figures of each set, the mean over the seeds and their spread."""
    pocket = Pocket.of(checkout)
    measure: Callable[[Pocket, Path, list[str]], dict[str, float]] = style if which == "style" else character
    for name in sets:
        work = ROOT / "assets" / "pocket" / "build" / "work" / f"{which}s" / name
        folder = ROOT / "assets" / "demo" / which if name == "demo" else work
        found = [measure(pocket, folder, [*flags, "--model.seed", str(seed)]) for seed in range(seeds)]
        told = []
        for figure in found[0]:
            values = [one[figure] for one in found]
            told.append(f"{figure} {mean(values):.3f}" + (f" ± {stdev(values):.3f}" if seeds > 1 else ""))
        sys.stdout.write(f"{which} {name}: {', '.join(told)} ({seeds} seeds)\n")
        sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=["style", "character"])
    parser.add_argument("--sets", nargs="+", default=["demo"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--checkout", type=Path, default=ROOT, help="Whose presets and built-in model are measured.")
    known, rest = parser.parse_known_args()
    main(known.which, known.sets, known.seeds, known.checkout.resolve(), rest)
