"""The data set in memory: encoded pictures and captions, and the samples of each step."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.contract.buckets import Crop, Plan, Size, View, buckets, crop_to, nearest_bucket, views_of_step
from trainer.contract.captions import CAPTION_VARIANTS, Item, shuffled, with_trigger
from trainer.contract.errors import NonFiniteLatents
from trainer.contract.settings import DatasetSettings
from trainer.data.cache import TensorCache, digest, dtype_name, file_digest
from trainer.data.images import load_picture, to_pixels
from trainer.families.base import Conditioning, Family

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Sample:
    """One picture in one step: what is shown, mirrored or not, with which caption; `index` counts within the step."""

    index: int
    item: int
    mirrored: bool
    caption: str


@dataclass(frozen=True)
class Encoded:
    """Scaled posterior of one picture, mean and std, each (C, h, w) float32."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class EncodedDataset:
    """Everything the steps read: each item's cut, and posteriors by (item, mirrored)."""

    items: list[Item]
    crops: list[Crop]
    posteriors: dict[tuple[int, bool], Encoded]

    @property
    def buckets(self) -> list[Size]:
        """Each item's size as it is shown."""
        return [crop.bucket for crop in self.crops]

    def frame(self, sample: Sample) -> tuple[int, ...]:
        """The sample's original height and width, its cut's top and left, and the shown height and width, in px."""
        item, crop = self.items[sample.item], self.crops[sample.item]
        mirrored_left = crop.scaled.width - crop.bucket.width - crop.left
        left = mirrored_left if sample.mirrored else crop.left
        return item.height, item.width, crop.top, left, crop.bucket.height, crop.bucket.width

    def fingerprint(self) -> str:
        """Digest of pictures and captions, by which a resumed run knows its data."""
        return digest(*((file_digest(item.path), item.caption) for item in self.items))


def choose_crops(items: Sequence[Item], family: Family, resolution_px: int) -> list[Crop]:
    """Each picture's scaling and cut for the model's grid."""
    sizes = buckets(resolution_px, family.spec.bucket_step)
    return [crop_to(i.width, i.height, nearest_bucket(i.width, i.height, sizes)) for i in items]


def encode_dataset(
    items: list[Item],
    family: Family,
    settings: DatasetSettings,
    *,
    dtype: torch.dtype,
    cache: TensorCache,
    progress: Progress,
) -> EncodedDataset:
    """VAE posteriors of all pictures, from the cache where it has them.

    Raises:
        UnreadableImage: A picture cannot be decoded.
        NonFiniteLatents: The VAE overflowed.
    """
    crops = choose_crops(items, family, settings.resolution)
    vae = family.encoder_key("vae")
    mirrors = (False, True) if settings.flip else (False,)
    made: dict[tuple[int, bool], Encoded] = {}
    for number, (item, crop) in enumerate(zip(items, crops, strict=True)):
        for mirrored in mirrors:
            key = digest("latents", file_digest(item.path), crop, mirrored, vae, dtype_name(dtype))
            stored = cache.get(key, lambda item=item, crop=crop, flip=mirrored: _encode(family, item, crop, flip))  # type: ignore[misc]
            factor = family.scaling_factor
            made[number, mirrored] = Encoded(stored["mean"] * factor, stored["std"] * factor)
        progress(number + 1, len(items))
    return EncodedDataset(items, crops, made)


def _encode(family: Family, item: Item, crop: Crop, mirrored: bool) -> dict[str, Tensor]:
    pixels = to_pixels(load_picture(item.path), crop)
    posterior = family.encode_image((pixels.flip(2) if mirrored else pixels).unsqueeze(0))
    mean, std = posterior.mean[0], posterior.std[0]
    if not (mean.isfinite().all() and std.isfinite().all()):
        raise NonFiniteLatents(item.path)
    return {"mean": mean, "std": std}


def captions_of(item: Item, settings: DatasetSettings, seed: int) -> list[str]:
    """Every caption the picture can be shown with, without the empty one: shuffled forms, or just one."""
    caption = with_trigger(item.caption, settings.trigger_word)
    if not settings.shuffle_tags:
        return [caption]
    keep = max(settings.keep_tags, 1 if settings.trigger_word else 0)
    return [shuffled(caption, keep, seed + variant) for variant in range(CAPTION_VARIANTS)]


def samples_of_step(step: int, plan: Plan, data: EncodedDataset, settings: DatasetSettings, seed: int) -> list[Sample]:
    """What step 0, 1, … shows: a function of (seed, step) alone, whatever the batch's shape."""
    views = views_of_step(step, plan, data.buckets, seed)
    return [_sample(index, view, data.items[view.item], settings, seed) for index, view in enumerate(views)]


def _sample(index: int, view: View, item: Item, settings: DatasetSettings, seed: int) -> Sample:
    rng = random.Random(f"{seed}-{view.item}-{view.epoch}")
    mirrored = rng.random() < 0.5 and settings.flip
    dropped = rng.random() < settings.caption_dropout
    forms = captions_of(item, settings, seed)
    return Sample(index, view.item, mirrored, "" if dropped else forms[view.epoch % len(forms)])


class TextStates:
    """Captions as conditioning: looked up when the text encoder is frozen, computed with gradients when it learns."""

    def __init__(self, family: Family, trained: bool) -> None:
        self._family = family
        self._trained = trained
        self._known: dict[str, Conditioning] = {}
        self._ids: dict[str, Tensor] = {}

    @torch.no_grad()
    def learn(self, captions: Sequence[str], dtype: torch.dtype, cache: TensorCache, progress: Progress) -> None:
        """Prepare captions before training: states from the cache, or token ids where the encoder will change."""
        wanted = [caption for caption in dict.fromkeys(captions) if caption not in self._known]
        encoder = "" if self._trained else self._family.encoder_key("text")
        for number, caption in enumerate(wanted):
            ids = self._family.tokenize([caption])
            if self._trained:
                self._ids[caption] = ids
                continue
            key = digest("text", ids.tolist(), encoder, dtype_name(dtype))
            stored = cache.get(key, lambda ids=ids: self._family.encode_text(ids).text())  # type: ignore[misc]
            self._known[caption] = Conditioning(**stored)
            progress(number + 1, len(wanted))

    def __call__(self, captions: Sequence[str], device: torch.device) -> Conditioning:
        """Conditioning of captions that `learn` has seen, without frames."""
        if self._trained:
            return self._family.encode_text(torch.cat([self._ids[caption] for caption in captions]))
        return Conditioning.stack([self._known[caption] for caption in captions]).to(device)
