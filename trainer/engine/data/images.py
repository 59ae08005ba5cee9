"""Pictures and masks as tensors."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from trainer.dataset.buckets import Crop
from trainer.dataset.images import cut


def to_pixels(picture: Image.Image, crop: Crop, mirrored: bool = False) -> Tensor:
    """A picture scaled and cut, (3, H, W) uint8 from RGB, (1, H, W) from grey."""
    shown = np.array(cut(picture, crop, mirrored), dtype=np.uint8)
    return torch.from_numpy(shown.reshape(*shown.shape[:2], -1)).permute(2, 0, 1)


def normalised(pixels: Tensor) -> Tensor:
    """What a VAE reads: bytes (…, H, W) as float32 in [-1, 1]."""
    return pixels.float().div(127.5).sub(1.0)


def in_latents(mask: Tensor, pixels_per_latent: int) -> Tensor:
    """Each latent's share of white, (1, h, w) float32 in [0, 1], of a grey picture (1, H, W) uint8."""
    return avg_pool2d(mask.float().div(255.0), pixels_per_latent)
