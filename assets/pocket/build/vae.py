"""Step 3: train the autoencoder on Noto and Fluent images (without cat faces and 200 held-out images).

Whole images, never crops: group norm removes a crop's mean, and in a crop without background nothing else shows
its color (on crops, brown bears stayed blue for 20,000 of them). It can be stopped and resumed:
`python -m assets.pocket.build.vae`.
"""

from __future__ import annotations

import argparse
import time

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from assets.pocket.build.common import (
    BASE_STYLES,
    SEED,
    WORK,
    Ema,
    Pictures,
    heldout_for_vae,
    load_checkpoint,
    load_pictures,
    save_checkpoint,
    sheet,
)
from assets.pocket.build.render import CAT_FACES

BATCH, PEAK_LR, WARMUP_STEPS = 8, 1.5e-3, 200
KL_WEIGHT = 3e-3  # per latent element: smooth latents that forgive the UNet's small errors


def new_vae() -> AutoencoderKL:
    """The architecture: 4 latent channels at 1/4 size; attention-free, so any size works."""
    channels = (32, 64, 128)
    return AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=64,
    )


def edges_loss(drawn: Tensor, wanted: Tensor) -> Tensor:
    """L1 distance of horizontal and vertical differences: outlines count double."""
    return sum((l1_loss(drawn.diff(dim=dim), wanted.diff(dim=dim)) for dim in (2, 3)), torch.zeros(()))


def opponents(pixels: Tensor) -> Tensor:
    """Red-green and blue-yellow, (B, 2, H, W): without their own term, outlines improve at the expense of hues."""
    red, green, blue = pixels.unbind(1)
    return torch.stack([red - green, blue - (red + green) / 2], 1)


def vae_loss(vae: AutoencoderKL, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of one batch, and the KL divergence per latent element for the log."""
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(pixels).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        drawn = vae.decode(mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)).sample.float()
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    pixel_loss = l1_loss(drawn, pixels) + 0.5 * edges_loss(drawn, pixels) + 2 * mse_loss(drawn, pixels)
    pixel_loss = pixel_loss + l1_loss(opponents(drawn), opponents(pixels))
    return pixel_loss + KL_WEIGHT * kl, kl


def draw_batch(pictures: Pictures, rows: list[int], step: int) -> Tensor:
    """The step's images, mirrored at random: a function of (seed, step) alone."""
    rng = torch.Generator().manual_seed(SEED * 1_000_003 + step)
    pixels = pictures.batch([rows[i] for i in torch.randint(len(rows), (BATCH,), generator=rng).tolist()])
    return pixels.flip(3) if torch.rand((), generator=rng) < 0.5 else pixels


def learning_rate(step: int, steps: int) -> float:
    """Warm-up, then a linear decay to zero."""
    return PEAK_LR * min((step + 1) / WARMUP_STEPS, 1.0) * (1 - step / steps)


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """What the decoder makes of the posterior's mean, (B, 3, H, W) in [-1, 1]."""
    return vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)


def psnr_db(vae: AutoencoderKL, pictures: Pictures, rows: list[int]) -> float:
    """Mean PSNR per image over `rows`, in dB, on 8-bit RGB scaled to [0, 1]."""
    values: list[Tensor] = []
    for start in range(0, len(rows), 20):
        pixels = pictures.batch(rows[start : start + 20])
        error = (reconstruct(vae, pixels) - pixels).div(2).square().mean(dim=(1, 2, 3))
        values.append(-10 * error.log10())
    return float(torch.cat(values).mean())


def report(ema: Ema, pictures: Pictures, heldout: list[int], step: int) -> None:
    """Print the averaged weights' figures on held-out pictures and save a sheet of pairs."""
    averaged = new_vae().to(memory_format=torch.channels_last).eval()
    averaged.load_state_dict(ema.average)
    sample = heldout[::4]
    pixels = pictures.batch(sample[:12])
    with torch.no_grad():
        latents = averaged.encode(pixels).latent_dist
        roughness = (latents.mean[..., 1:] - latents.mean[..., :-1]).std() / latents.mean.std()
    print(
        f"  held-out PSNR {psnr_db(averaged, pictures, sample):.2f} dB, latent std {latents.mean.std():.3f}, "
        f"posterior std {latents.std.mean():.3f}, neighbor difference {roughness:.2f}",
        flush=True,
    )
    sheet(
        torch.stack([pixels, reconstruct(averaged, pixels)], 1).flatten(0, 1), 8, WORK / "sheets" / f"vae-{step:06}.png"
    )


def train(steps: int, report_every: int) -> None:
    """Train to `steps`, continuing from `work/vae` where it stopped."""
    torch.manual_seed(SEED)
    pictures = load_pictures()
    heldout = heldout_for_vae(pictures)
    hidden = set(heldout)
    rows = [
        row
        for row, (style, icon) in enumerate(pictures.names)
        if style in BASE_STYLES and icon not in CAT_FACES and row not in hidden
    ]
    vae = new_vae().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    ema = Ema(vae)
    first = load_checkpoint(WORK / "vae", vae, ema, [optimizer])
    print(f"{len(rows)} pictures, steps {first}..{steps}", flush=True)
    since, seen, total = time.monotonic(), 0, 0.0
    for step in range(first, steps):
        pixels = draw_batch(pictures, rows, step)
        torch.manual_seed(SEED + step)
        loss, kl = vae_loss(vae, pixels)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.update(vae, step)
        seen, total = seen + len(pixels), total + loss.item()
        if (step + 1) % 100 == 0:
            rate = seen / (time.monotonic() - since)
            print(f"{step + 1}: loss {total / 100:.4f} kl {kl:.2f} {rate:.1f} pictures/s", flush=True)
            since, seen, total = time.monotonic(), 0, 0.0
        if (step + 1) % report_every == 0 or step + 1 == steps:
            save_checkpoint(WORK / "vae", vae, ema, [optimizer], step + 1)
            report(ema, pictures, heldout, step + 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3300)
    parser.add_argument("--report-every", type=int, default=500)
    arguments = parser.parse_args()
    train(arguments.steps, arguments.report_every)
