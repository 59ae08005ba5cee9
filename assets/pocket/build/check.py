"""Step 6: two figures of the shipped model: VAE reconstruction, and whether a caption generates its own image."""

from __future__ import annotations

import argparse

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from assets.pocket.build.common import (
    BASE_STYLES,
    MODEL,
    SEED,
    WORK,
    Pictures,
    caption,
    concepts,
    heldout_for_vae,
    load_pictures,
    sheet,
)
from assets.pocket.build.unet import base_latents, draw
from assets.pocket.build.vae import psnr_db

NEAREST, CAPTIONS = 5, 100
SHEET_CONCEPTS = [
    "red-apple",
    "banana",
    "strawberry",
    "pizza",
    "hamburger",
    "doughnut",
    "birthday-cake",
    "ice-cream",
    "watermelon",
    "avocado",
    "panda",
    "fox",
    "penguin",
    "octopus",
    "unicorn",
    "tiger-face",
    "rabbit-face",
    "frog",
    "whale",
    "butterfly",
    "grinning-face",
    "smiling-face-with-sunglasses",
    "face-with-tears-of-joy",
    "angry-face",
    "robot",
    "ghost",
    "red-heart",
    "blue-heart",
    "rainbow",
    "fire",
    "rocket",
    "airplane",
    "bicycle",
    "house",
    "guitar",
    "trophy",
    "key",
    "crown",
    "balloon",
    "soccer-ball",
]


def load_shipped() -> StableDiffusionPipeline:
    """Return the pipeline in `assets/pocket`, in float32."""
    pipe = StableDiffusionPipeline.from_pretrained(
        MODEL, local_files_only=True, safety_checker=None, torch_dtype=torch.float32
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.unet.to(memory_format=torch.channels_last)
    return pipe


def retrieval(
    pipe: StableDiffusionPipeline, pictures: Pictures, guidance: float, steps: int, count: int
) -> tuple[float, float]:
    """Share of captions whose own image is among the five nearest of its style in latent space, and chance."""
    latents: dict[str, torch.Tensor] = {}
    for style in BASE_STYLES:
        rows = pictures.rows({(style, icon) for icon in concepts()})
        order = {pictures.names[row][1]: i for i, row in enumerate(rows)}
        mean, _, factor = base_latents(pipe.vae, pictures, rows)
        latents[style] = (mean / factor)[[order[icon] for icon in concepts()]].flatten(1)
    every = [(style, place) for style in BASE_STYLES for place in range(len(concepts()))]
    drawn_by_seed = torch.randperm(len(every), generator=torch.Generator().manual_seed(SEED))[:count].tolist()
    hits = 0
    for start in range(0, count, 20):
        chosen = [every[i] for i in drawn_by_seed[start : start + 20]]
        made = draw(pipe, [caption(concepts()[place], style) for style, place in chosen], guidance, steps, seed=start)
        with torch.no_grad():
            found = pipe.vae.encode(made.contiguous(memory_format=torch.channels_last)).latent_dist.mean.flatten(1)
        for (style, place), latent in zip(chosen, found, strict=True):
            distance = (latents[style] - latent).square().sum(1)
            hits += int(place in distance.topk(NEAREST, largest=False).indices.tolist())
    return hits / count, NEAREST / len(concepts())


def check(guidance: float, steps: int, count: int) -> None:
    """Print both figures and save the sheet of 40 prompts."""
    torch.manual_seed(0)
    pictures, pipe = load_pictures(), load_shipped()
    heldout = heldout_for_vae(pictures)
    vae: AutoencoderKL = pipe.vae.to(memory_format=torch.channels_last)
    print(
        f"VAE: {psnr_db(vae, pictures, heldout):.2f} dB PSNR on {len(heldout)} held-out pictures (bar: 27)", flush=True
    )
    prompts = [caption(icon, BASE_STYLES[i % 2]) for i, icon in enumerate(SHEET_CONCEPTS)]
    made = [draw(pipe, prompts[i : i + 20], guidance, steps, seed=i) for i in range(0, len(prompts), 20)]
    sheet(torch.cat(made), 10, WORK / "sheets" / "check.png")
    share, chance = retrieval(pipe, pictures, guidance, steps, count)
    print(
        f"Captions: {share:.0%} of {count} find their own picture among the {NEAREST} nearest of their style "
        f"(bar: 60 %, chance {chance:.1%}); guidance {guidance}, {steps} steps"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guidance", type=float, default=2.5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--captions", type=int, default=CAPTIONS)
    arguments = parser.parse_args()
    check(arguments.guidance, arguments.steps, arguments.captions)
