"""Noise schedules, targets, weights and the training loss: pure functions that name their source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.contract.errors import InvalidSettings
from trainer.contract.settings.learning import ObjectiveSettings
from trainer.engine.families.base import Conditioning, NoiseSpec
from trainer.models.identify import Prediction

Denoiser = Callable[[Tensor, Tensor, Conditioning], Tensor]


@dataclass(frozen=True)
class Batch:
    """Posterior mean and std, each (B, C, h, w), times the VAE's scaling factor; and the conditioning."""

    mean: Tensor
    std: Tensor
    conditioning: Conditioning
    uncaptioned: Tensor  # (B,) bool: views whose caption was dropped, or that have none
    drawn: Tensor | None = None  # (B,) bool: images that the base model drew
    mask: Tensor | None = None  # (B, 1, h, w) from 0, left out, to 1, learnt; None: all is learnt


@dataclass(frozen=True)
class NoiseSchedule:
    """Noise level, target and weight per timestep; `alphas_cumprod` is (T,) float32."""

    alphas_cumprod: Tensor
    prediction: Prediction
    min_snr_gamma: float
    noise_offset: float
    timesteps: range  # those trained on
    keep_from: int  # from this timestep on, the base model's own prediction is the target
    keep_uncaptioned: bool  # and wherever there is no caption
    mask_keep: float  # weight of keeping what a mask leaves out as the base model has it

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and noise amplitude at `t` (B,), each (B, 1, 1, 1): sqrt(abar), sqrt(1 - abar)."""
        kept = self.alphas_cumprod.to(t.device)[t].view(-1, 1, 1, 1)
        return kept.sqrt(), (1 - kept).sqrt()

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Noisy latents, (B, C, h, w) (Ho et al. 2020, eq. 4)."""
        signal, sigma = self.levels(t)
        return signal * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the model should answer, (B, C, h, w): the noise, or the velocity (Salimans & Ho 2022, eq. 12)."""
        if self.prediction == "epsilon":
            return noise
        signal, sigma = self.levels(t)
        return signal * noise - sigma * latents

    def weight(self, t: Tensor) -> Tensor:
        """Loss weight per sample, (B,)."""
        if self.min_snr_gamma == 0:
            return torch.ones(len(t), device=t.device)
        kept = self.alphas_cumprod.to(t.device)[t]
        return min_snr_weight(kept / (1 - kept), self.min_snr_gamma, self.prediction)


def min_snr_weight(snr: Tensor, gamma: float, prediction: Prediction) -> Tensor:
    """Min-SNR loss weight per sample, (B,) -> (B,) (Hang et al. 2023, arXiv:2303.09556)."""
    divisor = snr if prediction == "epsilon" else snr + 1  # a v-target already carries SNR + 1
    return snr.clamp(max=gamma) / divisor


def make_schedule(spec: NoiseSpec, settings: ObjectiveSettings) -> NoiseSchedule:
    """The base model's noise with the user's objective."""
    kept = torch.cumprod(1 - betas(spec), dim=0)
    kept = zero_terminal(kept) if spec.zero_terminal_snr else kept
    timesteps = range(settings.min_timestep, min(settings.max_timestep, len(kept)))
    return NoiseSchedule(
        alphas_cumprod=kept.float(),
        prediction=spec.prediction,
        min_snr_gamma=settings.min_snr_gamma,
        noise_offset=settings.noise_offset,
        timesteps=timesteps,
        keep_from=settings.keep_from_timestep,
        keep_uncaptioned=settings.keep_uncaptioned,
        mask_keep=settings.mask_keep,
    )


def betas(spec: NoiseSpec) -> Tensor:
    """Noise added per timestep, (T,) float64, from the schedule's name (Ho et al. 2020; Rombach et al. 2022).

    Raises:
        InvalidSettings: A schedule that Stable Diffusion models do not use.
    """
    count = spec.num_timesteps
    if spec.beta_schedule == "scaled_linear":
        return torch.linspace(spec.beta_start**0.5, spec.beta_end**0.5, count, dtype=torch.float64) ** 2
    if spec.beta_schedule == "linear":
        return torch.linspace(spec.beta_start, spec.beta_end, count, dtype=torch.float64)
    raise InvalidSettings(
        f'The base model\'s noise schedule is "{spec.beta_schedule}".', hint="Only linear and scaled_linear are known."
    )


def zero_terminal(alphas_cumprod: Tensor) -> Tensor:
    """The same curve shifted and scaled so that the last timestep is pure noise, (T,) (Lin et al. 2023, alg. 1)."""
    root = alphas_cumprod.sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


def sample_rng(seed: int, step: int, index: int) -> torch.Generator:
    """The generator of one sample: depends on (seed, step, sample index within the step), never on batch shape."""
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + index * 0x94D049BB133111EB) % 2**63
    return torch.Generator().manual_seed(mixed)


def draw_noise(shape: Sequence[int], rng: Sequence[torch.Generator]) -> Tensor:
    """Standard normal noise (B, C, h, w) float32 on the CPU, row by row from each sample's own generator."""
    return torch.stack([torch.randn(tuple(shape[1:]), generator=own) for own in rng])


def draw_timesteps(among: range, rng: Sequence[torch.Generator]) -> Tensor:
    """Uniform timesteps (B,) int64 on the CPU."""
    return torch.stack([torch.randint(among.start, among.stop, (), generator=own) for own in rng])


def training_loss(
    denoiser: Denoiser, base: Denoiser, batch: Batch, schedule: NoiseSchedule, rng: Sequence[torch.Generator]
) -> Tensor:
    """Weighted denoising error of each sample in a micro-batch.

    Args:
        denoiser: Predicts from (noisy, t, conditioning); same shape out as in.
        base: The same without the adapter, whose prediction is the target where the base model is to be kept.
        batch: Scaled posteriors (B, C, h, w) and their conditioning; all of one size.
        schedule: Gives noise level, target and weight per timestep.
        rng: One generator per sample.

    Returns:
        (B,) float32, before the mean over the step's samples.
    """
    shape, device = batch.mean.shape, batch.mean.device
    latents = batch.mean + batch.std * draw_noise(shape, rng).to(device)
    noise = draw_noise(shape, rng).to(device)
    t = draw_timesteps(schedule.timesteps, rng).to(device)  # (B,)
    if schedule.noise_offset > 0:
        # One shift per image and channel (Guttenberg 2023, "Diffusion with offset noise")
        noise = noise + schedule.noise_offset * draw_noise((*shape[:2], 1, 1), rng).to(device)

    noisy = schedule.add_noise(latents, noise, t)
    target, weight = schedule.target(latents, noise, t).float(), schedule.weight(t)
    kept = t >= schedule.keep_from
    if schedule.keep_uncaptioned:
        kept = kept | batch.uncaptioned.to(device)
    if batch.drawn is not None:
        kept = kept | batch.drawn.to(device)
    mask = None if batch.mask is None else batch.mask.to(device).masked_fill(kept.view(-1, 1, 1, 1), 1.0)
    asked = kept if mask is None or schedule.mask_keep == 0 else kept | (mask.amin(dim=(1, 2, 3)) < 1)
    held = target.clone()  # what the base model answers, where it is asked
    if asked.any():
        with torch.no_grad():
            held[asked] = base(noisy[asked], t[asked], batch.conditioning.rows(asked)).float()
        target[kept] = held[kept]
        weight = weight.masked_fill(kept, 1.0)  # min-SNR all but ignores these timesteps: nothing would be kept

    prediction = denoiser(noisy, t, batch.conditioning).float()
    error = (prediction - target).square()  # (B, C, h, w)
    if mask is not None:
        error = masked_error(error, (prediction - held).square(), mask, schedule.mask_keep)
    return weight * error.mean(dim=(1, 2, 3))


def masked_error(error: Tensor, moved: Tensor, mask: Tensor, keep: float) -> Tensor:
    """What is learnt under a mask m: m · error / mean(m) + k (1 - m) · moved, (B, C, h, w).

    Its mean is the mean error of what the mask shows, so a small one learns as fast as a large one, and besides, for
    each place that it leaves out, how far that moved from the base model. A mask that shows all changes nothing, to the
    last bit; of one that shows nothing only the holding is left.

    Args:
        error: Squared, from what is to be learnt, (B, C, h, w).
        moved: Squared, from the base model's own prediction, likewise.
        mask: m, 0 to 1, (B, 1, h, w).
        keep: k, how much holding counts.
    """
    share = mask.mean(dim=(1, 2, 3), keepdim=True)
    return torch.where(share > 0, mask * error / share, 0.0) + keep * (1 - mask) * moved
