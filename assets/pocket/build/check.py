"""Step 6: figures of the shipped model: VAE reconstruction, and whether a caption generates its own image."""

from __future__ import annotations

import argparse

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline

from assets.pocket.build.common import (
    BASE_STYLES,
    MODEL,
    PLAIN_STYLE,
    SEED,
    WORK,
    Pictures,
    caption,
    concepts,
    heldout_for_vae,
    load_pictures,
    sheet,
)
from assets.pocket.build.unet import NOISE, Lessons, Painter, composing_error, draw, load_shipped_weights
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


@torch.no_grad()
def own_latents(pipe: StableDiffusionPipeline, pictures: Pictures, style: str) -> torch.Tensor:
    """The scaled latents of a style's images in the order of `concepts()`, (N, 1024)."""
    rows = pictures.rows({(style, icon) for icon in concepts()})
    order = {pictures.names[row][1]: i for i, row in enumerate(rows)}
    mean = torch.cat(
        [pipe.vae.encode(pictures.batch(rows[i : i + 32])).latent_dist.mean for i in range(0, len(rows), 32)]
    )
    return mean[[order[icon] for icon in concepts()]].flatten(1) * pipe.vae.config.scaling_factor


@torch.no_grad()
def meets(
    pipe: StableDiffusionPipeline, own: torch.Tensor, style: str | None, *, guidance: float, steps: int, count: int
) -> tuple[float, float]:
    """How a caption's image meets its own image: RMS distance in latents, and whether it is among the nearest.

    Args:
        pipe: The model.
        own: What `own_latents` gives for the style that is meant.
        style: The style that the captions name, if they name one.
        guidance: The CFG scale.
        steps: Steps of generation.
        count: Captions tried, chosen by seed.

    Returns:
        The RMS distance over all captions, and the share whose own image is among the `NEAREST` of its style.
    """
    chosen = torch.randperm(len(own), generator=torch.Generator().manual_seed(SEED))[:count].tolist()
    squares, hits = 0.0, 0
    for start in range(0, count, 20):
        places = chosen[start : start + 20]
        made = draw(pipe, [caption(concepts()[place], style) for place in places], guidance, steps, seed=start)
        latents = pipe.vae.encode(made.contiguous(memory_format=torch.channels_last)).latent_dist.mean.flatten(1)
        found = latents * pipe.vae.config.scaling_factor
        for place, latent in zip(places, found, strict=True):
            distance = (own - latent).square().mean(1)
            squares += float(distance[place])
            hits += int(place in distance.topk(NEAREST, largest=False).indices.tolist())
    return (squares / count) ** 0.5, hits / count


def check(guidance: float, steps: int, count: int) -> None:
    """Print the figures and save the sheet of 40 prompts."""
    torch.manual_seed(0)
    pictures, pipe = load_pictures(), load_shipped()
    heldout = heldout_for_vae(pictures)
    vae: AutoencoderKL = pipe.vae.to(memory_format=torch.channels_last)
    print(f"VAE: {psnr_db(vae, pictures, heldout):.2f} dB PSNR on {len(heldout)} held-out images (bar: 27)", flush=True)
    painter = Painter()
    load_shipped_weights(painter)
    error = composing_error(painter.eval(), Lessons(pipe.tokenizer, vae), DDPMScheduler(**NOISE), count=512)
    print(f"x0 error at timesteps from 700: {error:.3f} RMS (bar: 0.20)", flush=True)
    prompts = [caption(icon, BASE_STYLES[i % 2]) for i, icon in enumerate(SHEET_CONCEPTS)]
    made = [draw(pipe, prompts[i : i + 20], guidance, steps, seed=i) for i in range(0, len(prompts), 20)]
    sheet(torch.cat(made), 10, WORK / "sheets" / "check.png")
    for style in (None, *BASE_STYLES):
        own = own_latents(pipe, pictures, style or PLAIN_STYLE)
        distance, share = meets(pipe, own, style, guidance=guidance, steps=steps, count=count)
        print(
            f"Captions {f'in {style} style' if style else 'without a style'}: {distance:.3f} RMS to their own image "
            f"(bar: {0.33 if style else 0.4}), {share:.0%} of {count} have it among the {NEAREST} nearest of its style "
            f"(chance {NEAREST / len(own):.1%}); guidance {guidance}, {steps} steps",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guidance", type=float, default=2.5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--captions", type=int, default=CAPTIONS)
    arguments = parser.parse_args()
    check(arguments.guidance, arguments.steps, arguments.captions)
