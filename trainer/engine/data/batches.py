"""The data set in memory: encoded images and captions, and the samples of each step."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer.contract.settings.dataset import DatasetSettings
from trainer.dataset.buckets import Crop, Size, crops
from trainer.dataset.captions import Item, drawn
from trainer.dataset.errors import NothingToTrain, UnreadableImage
from trainer.dataset.views import Plan, View, views_of_step
from trainer.engine.data.cache import TensorCache
from trainer.engine.data.encoding import Cut, Encoded, Encoder, Progress
from trainer.engine.digests import digest, dtype_name
from trainer.engine.families.base import Conditioning, Family

TEXT_BATCH = 16  # captions that are encoded together


@dataclass(frozen=True)
class Sample:
    """One image in one step: what is shown, mirrored or not, with which caption; `index` counts within the step."""

    index: int
    item: int
    mirrored: bool
    caption: str
    drawn: bool = False  # the item is one of those that the base model drew


@dataclass(frozen=True)
class EncodedDataset:
    """Everything the steps read: each item's cut, and posteriors by (item, mirrored).

    An image that is shown at several sizes is as many items, one after the other.
    """

    items: list[Item]
    crops: list[Crop]
    posteriors: dict[tuple[int, bool], Encoded]
    digests: list[str] = field(default_factory=list)  # SHA-256 of each item's file, as it was encoded
    broken: list[UnreadableImage] = field(default_factory=list)  # what had to be left out
    drawn: EncodedDataset | None = None  # images that the base model drew, which it is to be kept at

    @property
    def buckets(self) -> list[Size]:
        """Each item's size as it is shown."""
        return [crop.bucket for crop in self.crops]

    def encoded(self, sample: Sample) -> Encoded:
        """The sample's posterior."""
        return self._of(sample).posteriors[sample.item, sample.mirrored]

    def size(self, sample: Sample) -> Size:
        """The sample's size as it is shown."""
        return self._of(sample).crops[sample.item].bucket

    def frame(self, sample: Sample) -> tuple[int, ...]:
        """The sample's original height and width, its cut's top and left, and the shown height and width, in px."""
        data = self._of(sample)
        item, crop = data.items[sample.item], data.crops[sample.item]
        mirrored_left = crop.scaled.width - crop.bucket.width - crop.left
        left = mirrored_left if sample.mirrored else crop.left
        return item.height, item.width, crop.top, left, crop.bucket.height, crop.bucket.width

    def fingerprint(self) -> str:
        """Digest of images, masks and captions as they are trained, by which a resumed run knows its data."""
        masks = [self.posteriors[number, False].mask for number in range(len(self.items))]
        shapes = [None if mask is None else hashlib.sha256(mask.numpy().tobytes()).hexdigest() for mask in masks]
        every = zip(self.items, self.crops, self.digests, shapes, strict=True)
        return digest(*((seen, i.name, i.caption, *i.others, i.weight, crop, mask) for i, crop, seen, mask in every))

    def item(self, sample: Sample) -> Item:
        """The sample's image."""
        return self._of(sample).items[sample.item]

    def _of(self, sample: Sample) -> EncodedDataset:
        return self.drawn if sample.drawn and self.drawn else self


def choose_cuts(items: Sequence[Item], family: Family, settings: DatasetSettings) -> list[Cut]:
    """Each image with its scaling and cut for the model's grid, at each of the sizes."""
    step = family.spec.bucket_step
    return [
        Cut(item, crop, (False, True) if settings.of_folder(item.concept).flip else (False,))
        for item in items
        for crop in crops(item.width, item.height, item.focus, step, settings)
    ]


def encode_dataset(
    items: list[Item],
    family: Family,
    settings: DatasetSettings,
    *,
    dtype: torch.dtype,
    cache: TensorCache,
    progress: Progress,
) -> EncodedDataset:
    """VAE posteriors of all images, cut for the model's grid; see `encode`."""
    cuts = choose_cuts(items, family, settings)
    return encode(cuts, family, settings, dtype=dtype, cache=cache, progress=progress)


def encode(
    cuts: Sequence[Cut],
    family: Family,
    settings: DatasetSettings,
    *,
    dtype: torch.dtype,
    cache: TensorCache,
    progress: Progress,
) -> EncodedDataset:
    """VAE posteriors of all images that can be decoded, from the cache where it has them.

    Raises:
        NothingToTrain: None can.
        NonFiniteLatents: The VAE overflowed.
    """
    made = Encoder(family, settings, dtype, cache).encode(cuts, progress)
    broken = {one.cut.item.path: one.error for one in made if one.error}  # at one of its sizes is at all
    whole = [one for one in made if one.cut.item.path not in broken]
    if not whole:
        first = next(iter(broken.values()))
        raise NothingToTrain(first.path.parent, first.cause)
    return EncodedDataset(
        items=[one.cut.item for one in whole],
        crops=[one.cut.crop for one in whole],
        posteriors={
            (number, mirrored): one.encoded(mirrored, family.scaling_factor)
            for number, one in enumerate(whole)
            for mirrored in one.cut.mirrors
        },
        digests=[one.digest for one in whole],
        broken=list(broken.values()),
    )


def samples_of_step(step: int, plan: Plan, data: EncodedDataset, settings: DatasetSettings, seed: int) -> list[Sample]:
    """What step 0, 1, … shows: a function of (seed, step) alone, whatever the batch's shape.

    Where the base model is protected, its own images stand among the views, evenly spread and each in its turn.
    """
    views = views_of_step(step, plan, data.buckets, seed)
    own, alike = iter(views), _drawn_for(views, data)
    first, last = plan.places(step)
    samples = []
    for place in range(first, last):
        before = plan.base_views_before(place)
        if data.drawn and plan.base_views_before(place + 1) > before:
            number = alike[before % len(alike)]
            caption = data.drawn.items[number].caption
            samples.append(Sample(place - first, number, mirrored=False, caption=caption, drawn=True))
        else:
            view = next(own)
            mirrored, caption = drawn(data.items[view.item], view.item, view.epoch, settings, seed)
            samples.append(Sample(place - first, view.item, mirrored, caption))
    return samples


def _drawn_for(views: Sequence[View], data: EncodedDataset) -> Sequence[int]:
    """The drawn images of the size that most steps have alone, so that they share its forward pass; else all."""
    sizes = data.drawn.buckets if data.drawn else []
    same = [number for number, size in enumerate(sizes) if views and size == data.buckets[views[0].item]]
    return same or range(len(sizes))


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
        if self._trained:
            self._ids |= {caption: self._family.tokenize([caption]) for caption in wanted}
            return
        how = self._family.encoder_key("text"), dtype_name(dtype)
        for start in range(0, len(wanted), TEXT_BATCH):
            chosen = wanted[start : start + TEXT_BATCH]
            ids = {caption: self._family.tokenize([caption]) for caption in chosen}
            keys = {caption: digest("text", ids[caption].tolist(), *how) for caption in chosen}
            stored = {caption: cache.read(key) for caption, key in keys.items()}
            if None in stored.values():
                # All of them, since fewer at once would have other last bits than if nothing had been known
                made = self._family.encode_text(torch.cat(list(ids.values()))).text()
                for number, caption in enumerate(chosen):
                    if stored[caption] is None:
                        own = {name: part[number : number + 1].clone() for name, part in made.items()}
                        stored[caption] = cache.write(keys[caption], own)
            self._known |= {caption: Conditioning(**found) for caption, found in stored.items() if found is not None}
            progress(start + len(chosen), len(wanted))

    def __call__(self, captions: Sequence[str], device: torch.device) -> Conditioning:
        """Conditioning of captions that `learn` has seen, without frames."""
        if self._trained:
            return self._family.encode_text(torch.cat([self._ids[caption] for caption in captions]))
        return Conditioning.stack([self._known[caption] for caption in captions]).to(device)
