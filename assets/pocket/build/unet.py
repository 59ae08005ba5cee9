"""Step 4: train UNet and text encoder together on the base images' latents, from scratch or from the shipped weights.

v-prediction, because at high noise levels an epsilon target hardly depends on the image, and there the prompt
decides. It can be stopped and resumed: `python -m assets.pocket.build.unet`. With `--first N` it starts from the
weights in `assets/pocket`, which have had N of the updates already, or from `at-N.safetensors` here, the averaged
weights of a training that was left unfinished: `--first 28000 --steps 34000` ends it, and the file goes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import cast

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from assets.pocket.build.common import (
    BASE_STYLES,
    MODEL,
    PLAIN_STYLE,
    SEED,
    WORK,
    Ema,
    Pictures,
    caption,
    concepts,
    load_checkpoint,
    load_pictures,
    other_captions,
    save_checkpoint,
    sheet,
)
from assets.pocket.build.tokenizer import MAX_TOKENS, build_tokenizer, token_ids
from assets.pocket.build.vae import new_vae

BATCH, PEAK_LR, WARMUP_STEPS, EMPTY_CAPTIONS, SNR_GAMMA = 16, 6e-4, 200, 0.1, 5.0
FLAT_SHARE = 0.4  # of all updates, at the peak learning rate; then it falls to 0
# The content is decided above this timestep (below it, the noisy image shows it already): most samples go there
COMPOSING_TIMESTEP, COMPOSING_SHARE = 600, 0.55
OTHER_CAPTIONS, FORMS = 0.5, 40  # share of the captions in another of so many forms
TEXT_WIDTH = 192
MUON_LEAST_WIDTH = 64
NOISE = {"num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SHEET_PROMPTS = [
    words + ending
    for words in (
        "red apple",
        "panda",
        "face with tears of joy",
        "rocket",
        "hamburger",
        "blue heart",
        "octopus",
        "guitar",
    )
    for ending in ("", *(f", {style} style" for style in BASE_STYLES))
]


class Painter(nn.Module):
    """UNet and text encoder as one module, so that one optimizer and one checkpoint hold both."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            layers_per_block=1,
            block_out_channels=(64, 128, 192),
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=TEXT_WIDTH,
            attention_head_dim=1,  # diffusers' name for the number of heads; narrow heads are slow on CPUs
            norm_num_groups=16,
            # The whole prompt also goes into every residual block, with the time embedding: with cross attention alone,
            # colors were right after 1,000 updates, shapes still wrong after 2,000
            addition_embed_type="text",
            addition_embed_type_num_heads=4,
        )
        self.text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=8514,
                hidden_size=TEXT_WIDTH,
                intermediate_size=4 * TEXT_WIDTH,
                num_hidden_layers=3,
                num_attention_heads=4,
                max_position_embeddings=MAX_TOKENS,
                bos_token_id=8512,
                eos_token_id=8513,
                pad_token_id=8513,
            )
        )
        # PyTorch's flash attention has a slow backward pass on a CPU at these widths
        self.unet.set_attn_processor(AttnProcessor())
        self.text_encoder.set_attn_implementation("eager")

    def forward(self, noisy: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        """Predicted v, (B, 4, 16, 16), from noisy latents, timesteps (B,) and token ids (B, 32)."""
        states = self.text_encoder(ids).last_hidden_state
        return self.unet(noisy, t, states, return_dict=False)[0]


def trained_vae() -> AutoencoderKL:
    """The autoencoder of step 3, averaged weights, or else the shipped one; float32."""
    vae = new_vae().to(memory_format=torch.channels_last).eval().requires_grad_(requires_grad=False)
    trained = WORK / "vae" / "ema.safetensors"
    vae.load_state_dict(
        load_file(trained if trained.exists() else MODEL / "vae" / "diffusion_pytorch_model.safetensors")
    )
    return vae


def load_first_weights(painter: Painter, first: int) -> None:
    """Fill UNet and text encoder with what an unfinished training left, or else with the weights in `assets/pocket`."""
    left = Path(__file__).with_name(f"at-{first}.safetensors")
    if left.is_file():
        painter.load_state_dict(load_file(left))
    else:
        load_shipped_weights(painter)


def load_shipped_weights(painter: Painter) -> None:
    """Fill UNet and text encoder with the weights in `assets/pocket`."""
    unet = UNet2DConditionModel.from_pretrained(MODEL / "unet", torch_dtype=torch.float32)
    text_encoder = CLIPTextModel.from_pretrained(MODEL / "text_encoder", dtype=torch.float32)
    painter.unet.load_state_dict(unet.state_dict())
    painter.text_encoder.load_state_dict(text_encoder.state_dict())


@torch.no_grad()
def base_latents(vae: AutoencoderKL, pictures: Pictures, rows: list[int]) -> tuple[Tensor, Tensor, float]:
    """Posterior mean and std, each (N, 4, 16, 16), both times the scaling factor 1/std, and that factor."""
    posteriors = [vae.encode(pictures.batch(rows[i : i + 32])).latent_dist for i in range(0, len(rows), 32)]
    mean = torch.cat([p.mean for p in posteriors])
    std = torch.cat([p.std for p in posteriors])
    factor = 1.0 / float((mean + std * torch.randn_like(std)).std())
    return mean * factor, std * factor, factor


def learning_rate(step: int, first: int, steps: int) -> float:
    """Warm-up from `first`, the peak for `FLAT_SHARE` of all updates, then a linear fall to 0."""
    warm = min((step - first + 1) / WARMUP_STEPS, 1.0)
    return PEAK_LR * warm * min((1 - step / steps) / (1 - FLAT_SHARE), 1.0)


class Lessons:
    """What is learned: every picture with its style's name, and those of `PLAIN_STYLE` without it, too.

    So a third of the samples has a plain caption, which always means the same style.
    """

    def __init__(self, tokenizer: CLIPTokenizer, vae: AutoencoderKL) -> None:
        pictures = load_pictures()
        rows = pictures.rows({(style, icon) for style in BASE_STYLES for icon in concepts()})
        mean, std, self.factor = base_latents(vae, pictures, rows)
        named = [pictures.names[row] for row in rows]
        plain = [i for i, (style, _) in enumerate(named) if style == PLAIN_STYLE]
        every = [*range(len(rows)), *plain]
        self.mean, self.std = mean[every], std[every]
        words: list[tuple[str, str | None]] = [(icon, style) for style, icon in named]
        words += [(named[i][1], None) for i in plain]
        self.plain_from = len(rows)
        texts = [[caption(icon, style), *other_captions(icon, style, FORMS)] for icon, style in words]
        ids = torch.tensor(token_ids(tokenizer, [text for group in texts for text in group]))
        self.ids = ids.view(len(texts), -1, ids.shape[1])
        self.empty = torch.tensor(token_ids(tokenizer, [""]))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Latents (B, 4, 16, 16) and token ids (B, 32) of an update; every lesson once in each pass."""
        passes, place = divmod(step * BATCH, len(self.mean))
        seeds = (torch.Generator().manual_seed(SEED + passes + i) for i in (0, 1))
        order = [torch.randperm(len(self.mean), generator=seed) for seed in seeds]
        chosen = torch.cat(order)[place : place + BATCH]
        latents = self.mean[chosen] + self.std[chosen] * torch.randn_like(self.std[chosen])
        other = torch.randint(1, self.ids.shape[1], (BATCH,))
        form = torch.where(torch.rand(BATCH) < OTHER_CAPTIONS, other, torch.zeros_like(other))
        ids = self.ids[chosen, form]
        return latents, torch.where(torch.rand(BATCH, 1) < EMPTY_CAPTIONS, self.empty, ids)


def draw_timesteps(count: int, total: int) -> Tensor:
    """Timesteps (count,), `COMPOSING_SHARE` of them where the prompt decides."""
    composing = torch.randint(COMPOSING_TIMESTEP, total, (count,))
    return torch.where(torch.rand(count) < COMPOSING_SHARE, composing, torch.randint(COMPOSING_TIMESTEP, (count,)))


class Optimizers:
    """Muon (Jordan et al. 2024) for matrices and kernels, AdamW for embeddings, norms, biases and small layers."""

    def __init__(self, module: nn.Module) -> None:
        matrices, rest = [], []
        self.kernels: list[tuple[nn.Parameter, nn.Parameter]] = []
        for name, weight in module.named_parameters():
            if "embedding" in name or weight.ndim not in (2, 4) or min(weight.shape[:2]) < MUON_LEAST_WIDTH:
                rest.append(weight)
            elif weight.ndim == 2:
                matrices.append(weight)
            else:
                # A kernel as the matrix (out, height * width * in), in the same memory: kernels are channels last
                flat = nn.Parameter(weight.detach().permute(0, 2, 3, 1).flatten(1))
                if flat.data_ptr() != weight.data_ptr():
                    raise ValueError(f"{name} is not in channels_last order")
                self.kernels.append((weight, flat))
                matrices.append(flat)
        self.every = [
            torch.optim.AdamW(rest, betas=(0.9, 0.99), weight_decay=1e-2, fused=True),
            torch.optim.Muon(matrices, weight_decay=0.0, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        ]

    def step(self, lr: float) -> None:
        """One update with this learning rate; the gradients are gone afterwards."""
        for weight, flat in self.kernels:
            flat.grad = cast(Tensor, weight.grad).permute(0, 2, 3, 1).flatten(1)
            weight.grad = None
        for optimizer in self.every:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            optimizer.zero_grad()


def painter_loss(painter: nn.Module, latents: Tensor, ids: Tensor, noise: DDPMScheduler) -> Tensor:
    """Min-SNR weighted v-prediction error (Salimans & Ho 2022, eq. 12; Hang et al. 2023)."""
    t = draw_timesteps(len(latents), noise.config.num_train_timesteps)
    eps = torch.randn_like(latents)
    noisy, target = noise.add_noise(latents, eps, t), noise.get_velocity(latents, eps, t)
    with torch.autocast("cpu", torch.bfloat16):
        prediction = painter(noisy.contiguous(memory_format=torch.channels_last), t, ids)
    snr = noise.alphas_cumprod[t] / (1 - noise.alphas_cumprod[t])
    weight = snr.clamp(max=SNR_GAMMA) / (snr + 1)
    # Low-noise steps polish, high-noise steps compose: keep both ends in view.
    weight = weight + 0.5 / (snr + 1).sqrt()
    return (weight * (prediction.float() - target).square().mean(dim=(1, 2, 3))).mean()


def pipeline(painter: Painter, vae: AutoencoderKL, tokenizer: CLIPTokenizer, factor: float) -> StableDiffusionPipeline:
    """The parts as a stock pipeline with the scheduler that ships."""
    vae.register_to_config(scaling_factor=factor)
    scheduler = DPMSolverMultistepScheduler(**NOISE, prediction_type="v_prediction", steps_offset=1)
    made = StableDiffusionPipeline(
        vae=vae,
        text_encoder=painter.text_encoder,
        tokenizer=tokenizer,
        unet=painter.unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def draw(pipe: StableDiffusionPipeline, prompts: list[str], guidance: float, steps: int, seed: int = 0) -> Tensor:
    """Images for the prompts, (B, 3, 64, 64) in [-1, 1]; image i uses seed + i."""
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
    with torch.autocast("cpu", torch.bfloat16):
        images = pipe(
            prompts, guidance_scale=guidance, num_inference_steps=steps, generator=generators, output_type="pt"
        ).images
    return images.float() * 2 - 1


@torch.no_grad()
def composing_error(painter: Painter, lessons: Lessons, noise: DDPMScheduler, count: int = 128) -> float:
    """RMS error of the predicted x0 at timesteps from 700, over fixed samples; 1 is the latents' own spread."""
    seed = torch.Generator().manual_seed(SEED)
    chosen = torch.randperm(len(lessons.mean), generator=seed)[:count]
    t = torch.randint(700, noise.config.num_train_timesteps, (count,), generator=seed)
    eps = torch.randn(lessons.mean[chosen].shape, generator=seed)
    noisy = noise.add_noise(lessons.mean[chosen], eps, t)
    with torch.autocast("cpu", torch.bfloat16):
        v = painter(noisy.contiguous(memory_format=torch.channels_last), t, lessons.ids[chosen, 0]).float()
    alpha = noise.alphas_cumprod[t].view(-1, 1, 1, 1)
    x0 = alpha.sqrt() * noisy - (1 - alpha).sqrt() * v  # Salimans & Ho 2022, appendix D
    return float((x0 - lessons.mean[chosen]).square().mean().sqrt())


def train(steps: int, first: int, report_every: int) -> None:
    """Train to `steps`, continuing from `work/painter`, or with `first` > 0 from the shipped weights."""
    torch.manual_seed(SEED)
    vae, tokenizer = trained_vae(), build_tokenizer()
    lessons, noise = Lessons(tokenizer, vae), DDPMScheduler(**NOISE)
    painter = Painter().to(memory_format=torch.channels_last)
    if first:
        load_first_weights(painter, first)
    optimizers, ema = Optimizers(painter), Ema(painter)
    begun = load_checkpoint(WORK / "painter", painter, ema, optimizers.every) or first
    size = sum(p.numel() for p in painter.parameters()) / 1e6
    print(f"{len(lessons.mean)} lessons, {size:.1f} M, factor {lessons.factor:.3f}, steps {begun}..{steps}", flush=True)
    since, total = time.monotonic(), 0.0
    for step in range(begun, steps):
        torch.manual_seed(SEED + step)
        loss = painter_loss(painter, *lessons.batch(step), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(painter.parameters(), 1.0)
        optimizers.step(learning_rate(step, first, steps))
        ema.update(painter, step)
        total += loss.item()
        if (step + 1) % 100 == 0:
            rate = 100 * BATCH / (time.monotonic() - since)
            print(f"{step + 1}: loss {total / 100:.4f} {rate:.1f} pictures/s", flush=True)
            since, total = time.monotonic(), 0.0
        if (step + 1) % report_every == 0 or step + 1 == steps:
            save_checkpoint(WORK / "painter", painter, ema, optimizers.every, step + 1)
            averaged = Painter()
            averaged.load_state_dict(ema.average)
            error = composing_error(averaged.eval(), lessons, noise)
            print(f"{step + 1}: x0 error from t = 700 {error:.4f} RMS", flush=True)
            drawn = draw(pipeline(averaged, vae, tokenizer, lessons.factor), SHEET_PROMPTS, guidance=2.5, steps=20)
            sheet(drawn, 6, WORK / "sheets" / f"painter-{step + 1:06}.png")
            since = time.monotonic()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=34_000)
    parser.add_argument("--first", type=int, default=0, help="updates of the shipped weights, to start from")
    parser.add_argument("--report-every", type=int, default=500)
    arguments = parser.parse_args()
    train(arguments.steps, arguments.first, arguments.report_every)
