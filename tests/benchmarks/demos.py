"""What the two demo presets learn, in figures: `python tests/benchmarks/demos.py`.

Runs `launch.py --preset pocket-style` and `--preset pocket-character` with one preview per kept-out image, then
compares the previews of step 0 and of the end with the kept-out images.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors import safe_open

from assets.pocket.build.style import style_distance
from trainer.contract.home import POCKET, Home
from trainer.dataset.buckets import Size, crop_to
from trainer.dataset.captions import with_trigger
from trainer.dataset.images import load_image
from trainer.dataset.scan import scan
from trainer.engine.data.encoding import normalised, to_pixels
from trainer.runs.folder import RunFolder

SIDE = 64


def run(preset: str, prompts: list[str], extra: list[str]) -> RunFolder:
    """Train the preset with these previews; returns its finished run."""
    command = [sys.executable, str(ROOT / "launch.py"), "--preset", preset, *extra, "--preview.every", "1000000"]
    subprocess.run([*command, "--preview.prompts", *prompts], check=True)
    return RunFolder.all(Home.find())[0]


def previews(done: RunFolder, step: int, count: int) -> list[Image.Image]:
    """The run's previews of one step."""
    return [load_image(done.samples / f"{step:06}-{index}.png") for index in range(count)]


def latents_of(images: list[Image.Image], vae: AutoencoderKL) -> torch.Tensor:
    """Scaled posterior means, (N, C h w)."""
    pixels = torch.stack([to_pixels(p, crop_to(p.width, p.height, Size(SIDE, SIDE))) for p in images])
    with torch.no_grad():
        mean: torch.Tensor = vae.encode(normalised(pixels)).latent_dist.mean
    return (mean * vae.config.scaling_factor).flatten(1)


def nearest_concepts(images: list[Image.Image], vae: AutoencoderKL) -> list[str]:
    """The concept of the nearest base image of either style, in latent space."""
    with safe_open(POCKET / "base-latents.safetensors", "pt") as file:
        captions = [caption.rsplit(",", 1)[0] for caption in json.loads(file.metadata()["captions"])]
        base = file.get_tensor("latents").float().flatten(1)
    return [captions[i] for i in torch.cdist(latents_of(images, vae), base).argmin(dim=1).tolist()]


def report(text: str) -> None:
    """One line on the console."""
    sys.stdout.write(text + "\n")


def style(vae: AutoencoderKL, extra: list[str]) -> None:
    """The style demo's figures."""
    kept_out, _ = scan(ROOT / "assets" / "demo" / "style" / "measure")
    prompts = [item.caption for item in kept_out]
    done = run("pocket-style", prompts, extra)
    view = done.view()
    real = [load_image(item.path) for item in kept_out]
    before, after = (previews(done, step, len(prompts)) for step in (0, view.steps[-1].step))
    far, near = style_distance(before, real), style_distance(after, real)
    was, now = nearest_concepts(before, vae), nearest_concepts(after, vae)
    right = [i for i, prompt in enumerate(prompts) if was[i] == prompt]
    kept = [i for i in right if now[i] == prompts[i]]
    report(
        f"pocket-style: style distance {far:.2f} -> {near:.2f} ({near / far - 1:+.0%}; bar -25 %), real images among "
        f"themselves {style_distance(real[:8], real[8:]):.2f}; nearest concept the prompted one for {len(right)} of "
        f"{len(prompts)} before, still for {len(kept)} of them after (bar 3/4); "
        f"training {sum(s.seconds for s in view.steps):.0f} s of {view.ended.seconds:.0f} s in all (bar 120 s)"
    )


def character(vae: AutoencoderKL, extra: list[str]) -> None:
    """The character demo's figures."""
    kept_out, _ = scan(ROOT / "assets" / "demo" / "character" / "measure")
    prompts = [with_trigger(item.caption, "mimi") for item in kept_out]
    seeds_each = 4  # several seeds per prompt: two images are too few for a mean
    done = run("pocket-character", prompts * seeds_each, extra)
    view = done.view()
    real = latents_of([load_image(item.path) for item in kept_out], vae).repeat(seeds_each, 1)
    last = view.steps[-1].step
    far, near = (
        float((latents_of(previews(done, step, len(real)), vae) - real).square().mean(dim=1).sqrt().mean())
        for step in (0, last)
    )
    report(
        f"pocket-character: latent distance to the kept-out images {far:.3f} -> {near:.3f} ({near / far - 1:+.0%}; "
        f"bar -20 %); training {sum(s.seconds for s in view.steps):.0f} s of {view.ended.seconds:.0f} s in all"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", nargs="?", choices=["style", "character"])
    known, flags = parser.parse_known_args()
    pocket_vae = AutoencoderKL.from_pretrained(POCKET, subfolder="vae", torch_dtype=torch.float32)
    if known.which in (None, "style"):
        style(pocket_vae, flags)
    if known.which in (None, "character"):
        character(pocket_vae, flags)
