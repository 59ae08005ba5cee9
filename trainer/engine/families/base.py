"""The one protocol behind which model families differ. A family never sees settings files, events or run folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from trainer.models.identify import Prediction
from trainer.models.lora_names import Component, Slot

Encoder = Literal["vae", "text"]


@dataclass(frozen=True)
class FamilySpec:
    """Numbers of one loaded model: latent channels, px per latent, bucket step in px, text layer from the end or 0."""

    name: str
    latent_channels: int
    pixels_per_latent: int
    bucket_step: int
    clip_skip: int


@dataclass(frozen=True)
class NoiseSpec:
    """How the base model was noised: its own scheduler configuration."""

    num_timesteps: int
    beta_start: float
    beta_end: float
    beta_schedule: str
    prediction: Prediction
    zero_terminal_snr: bool


@dataclass(frozen=True)
class Posterior:
    """The VAE's answer, unsampled and unscaled: mean and std, each (B, C, h, w) float32."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class Conditioning:
    """The denoiser's conditioning: text states (B, T, D), and where a family asks for them the rest.

    `pooled` is the caption as one vector (B, P); `frames` (B, 6) are original height and width, the cut's top and left,
    and the shown height and width, all in px (Podell et al. 2023, section 2.2).
    """

    states: Tensor
    pooled: Tensor | None = None
    frames: Tensor | None = None

    def rows(self, chosen: Tensor) -> Conditioning:
        """Those of the samples that the mask (B,) chooses."""
        return self._each(lambda part: part[chosen])

    def repeated(self, times: int) -> Conditioning:
        """One caption's, so many times over."""
        return self._each(lambda part: part.expand(times, *part.shape[1:]))

    def to(self, device: torch.device) -> Conditioning:
        """Returns this conditioning on a device."""
        return self._each(lambda part: part.to(device))

    def framed(self, frames: Tensor) -> Conditioning:
        """Returns this conditioning for images of these sizes and crops."""
        return replace(self, frames=frames)

    def text(self) -> dict[str, Tensor]:
        """What a caption alone decides, by name."""
        return {"states": self.states} if self.pooled is None else {"states": self.states, "pooled": self.pooled}

    @staticmethod
    def stack(parts: Sequence[Conditioning]) -> Conditioning:
        """Single captions as one batch."""
        every = [part.text() for part in parts]
        return Conditioning(**{name: torch.cat([one[name] for one in every]) for name in every[0]})

    def _each(self, change: Callable[[Tensor], Tensor]) -> Conditioning:
        parts = {"states": self.states, "pooled": self.pooled, "frames": self.frames}
        return Conditioning(**{name: change(part) for name, part in parts.items() if part is not None})


@dataclass(frozen=True)
class RenderOptions:
    """Previews generated together: a seed for each, denoising steps, guidance, size in px."""

    seeds: tuple[int, ...]
    steps: int
    guidance_scale: float
    width: int
    height: int


@dataclass(frozen=True)
class ExportLabels:
    """What the file's metadata says of the architecture (`lora-format`: ss_base_model_version, modelspec)."""

    base_model_version: str
    architecture: str
    implementation: str
    client_version: str  # what WebUIs call the base: SD1, SD2, SDXL
    note: str  # a sentence for the user where the file fits no common client, else empty


class Family(Protocol):
    """A loaded base model. Tensors cross this border on any device; images are RGB in [-1, 1]."""

    spec: FamilySpec
    noise: NoiseSpec
    labels: ExportLabels
    scaling_factor: float
    unet_files: list[Path]  # read when the UNet is first asked for

    def component(self, name: Component) -> nn.Module:
        """The module that LoRA layers are attached to."""
        ...

    def encode_image(self, pixels: Tensor) -> Posterior:
        """VAE posterior of (B, 3, H, W) float32 in [-1, 1]; H and W are multiples of `pixels_per_latent`."""
        ...

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Token ids (B, encoders, chunks, T) int64, padded and cut as the model's pipeline does."""
        ...

    def encode_text(self, ids: Tensor) -> Conditioning:
        """Conditioning of such token ids; differentiable when a text encoder carries LoRA."""
        ...

    def encoder_key(self, which: Encoder) -> str:
        """Digest of all that decides what the VAE, or the text encoders, answer: by it answers are kept."""
        ...

    def release_encoders(self, keep_text: bool) -> None:
        """Take the VAE off the device, and give up the text encoders unless they are trained."""
        ...

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The denoiser's prediction, same shape as `noisy` (B, C, h, w); `t` is (B,) int64."""
        ...

    def render(self, conditioning: Conditioning, negative: Conditioning, options: RenderOptions) -> list[Image.Image]:
        """Returns an image for each row of the conditioning, by the model's own scheduler; `negative` has one row."""
        ...

    def decode_in_tiles(self) -> None:
        """Decode images in tiles from here on, which takes less memory."""
        ...

    def lora_slots(self, targets: str, components: Sequence[Component]) -> dict[str, Slot]:
        """The key table: every kohya module name of these components and target set, from their configurations."""
        ...

    def kohya_name(self, component: Component, path: str) -> str:
        """The file's module name for a module path as the installed libraries spell it."""
        ...
