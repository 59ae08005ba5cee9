"""Images to posteriors: decoded and cut by threads some images ahead, encoded in batches, kept in the cache."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from trainer.contract.errors import NonFiniteLatents
from trainer.contract.settings.dataset import DatasetSettings
from trainer.dataset.buckets import Crop, Size
from trainer.dataset.captions import Item
from trainer.dataset.errors import UnreadableImage
from trainer.dataset.formats import cause_of
from trainer.dataset.images import LoadedImage, cut, read_image, read_mask
from trainer.engine.data.cache import TensorCache
from trainer.engine.digests import digest, dtype_name
from trainer.engine.families.base import Family

Progress = Callable[[int, int], None]
BATCH_PX = 512 * 512  # images larger than this fill any device alone, and a batch takes no more memory than one
MOST_THREADS = 8


@dataclass(frozen=True)
class Cut:
    """An image at one of its sizes."""

    item: Item
    crop: Crop
    mirrors: tuple[bool, ...]


@dataclass(frozen=True)
class Encoded:
    """Scaled posterior of one image, mean and std, each (C, h, w) float32; and its mask (1, h, w) from 0 to 1."""

    mean: Tensor
    std: Tensor
    mask: Tensor | None = None


def masks_of(encoded: Sequence[Encoded]) -> Tensor | None:
    """The masks of images of one size, (B, 1, h, w), all of an image that has none; None if none has one."""
    if all(one.mask is None for one in encoded):
        return None
    return torch.stack([torch.ones_like(one.mean[:1]) if one.mask is None else one.mask for one in encoded])


@dataclass
class Prepared:
    """What a thread has made of a cut: the cache's keys, and pixels (3, H, W) of what it lacks, by mirrored."""

    cut: Cut
    digest: str = ""
    mask: str | None = None  # its key
    mask_digest: str | None = None  # SHA-256 of its numbers
    keys: dict[bool, str] = field(default_factory=dict)  # of posteriors
    missing: dict[bool, Tensor] = field(default_factory=dict)
    error: UnreadableImage | None = None


class Posteriors(Mapping[tuple[int, bool], Encoded]):
    """Posteriors and masks by (item, mirrored), read from the cache as they are asked for."""

    def __init__(self, made: Sequence[Prepared], cache: TensorCache, scaling_factor: float) -> None:
        self._cache, self._scaling_factor = cache, scaling_factor
        self._keys = {
            (number, mirrored): (key, one.mask) for number, one in enumerate(made) for mirrored, key in one.keys.items()
        }

    def __getitem__(self, which: tuple[int, bool]) -> Encoded:
        key, mask_key = self._keys[which]
        stored, mask = self._cache.recall(key), None
        if mask_key is not None:
            mask = self._cache.recall(mask_key)["mask"]
            mask = mask.flip(2) if which[1] else mask
        return Encoded(stored["mean"] * self._scaling_factor, stored["std"] * self._scaling_factor, mask)

    def __iter__(self) -> Iterator[tuple[int, bool]]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def read_ahead(self, chosen: Iterable[tuple[int, bool]]) -> None:
        """Begin to read those that are asked for next."""
        self._cache.read_ahead(key for which in chosen for key in self._keys[which] if key is not None)


class Encoder:
    """Encodes cuts for one model and its settings."""

    def __init__(
        self,
        family: Family,
        settings: DatasetSettings,
        dtype: torch.dtype,
        cache: TensorCache,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._family, self._settings, self._cache = family, settings, cache
        self._ready = ready  # called by the thread that encodes, which a signal reaches, before it does
        self._made: set[str] = set()
        self._how = (settings.background, family.encoder_key("vae"), dtype_name(dtype))

    def encode(self, cuts: Sequence[Cut], progress: Progress) -> list[Prepared]:
        """The cuts in order, each with its keys in the cache, or the error that kept it from being decoded.

        Raises:
            NonFiniteLatents: The VAE overflowed.
        """
        threads = min(os.cpu_count() or 1, MOST_THREADS)
        made: list[Prepared] = []
        waiting: dict[Size, list[Prepared]] = {}
        done = 0
        with ThreadPoolExecutor(threads) as pool:
            writes: deque[Future[None]] = deque()

            def _finish(batch: list[Prepared]) -> int:
                for key, tensors in self._encode(batch):
                    writes.append(pool.submit(self._write, key, tensors))
                    if len(writes) > 2 * threads:  # a slow disk is waited for: memory holds no more than these
                        writes.popleft().result()
                return len(batch)

            for prepared in _ahead(pool, self._prepare, cuts, 2 * threads):
                made.append(prepared)
                if prepared.error:
                    done += 1
                else:
                    batch = waiting.setdefault(prepared.cut.crop.bucket, [])
                    batch.append(prepared)
                    if _pixels(batch) + _pixels([prepared]) > BATCH_PX:
                        done += _finish(waiting.pop(prepared.cut.crop.bucket))
                progress(done, len(cuts))
            for batch in waiting.values():
                done += _finish(batch)
                progress(done, len(cuts))
        for write in writes:
            write.result()  # raises if the disk is full
        return made

    def _write(self, key: str, tensors: dict[str, Tensor]) -> None:
        self._cache.write(key, tensors)

    def _prepare(self, cut: Cut) -> Prepared:
        """What can be done without the model."""
        prepared = Prepared(cut)
        try:
            self._read(prepared)
        except UnreadableImage as error:
            if isinstance(error.__context__, MemoryError):  # the image is not at fault
                raise error.__context__ from None
            prepared.error = error
            prepared.missing.clear()
        return prepared

    def _read(self, prepared: Prepared) -> None:
        """Fill in digest, mask, and posteriors or pixels.

        The bytes that are digested are the ones that are decoded, so a file that changes meanwhile is no lie later.

        Raises:
            UnreadableImage: The image or its mask cannot be decoded, or they do not belong together.
        """
        item, crop = prepared.cut.item, prepared.cut.crop
        content = _bytes(item.path)
        prepared.digest = hashlib.sha256(content).hexdigest()
        image: LoadedImage | None = None
        for mirrored in prepared.cut.mirrors:
            key = prepared.keys[mirrored] = digest("latents", prepared.digest, crop, mirrored, *self._how)
            if self._cache.read(key) is None:
                image = image or read_image(item.path, content, crop.scaled)
                prepared.missing[mirrored] = to_pixels(image.on(self._settings.background), crop, mirrored)
        self._mask(prepared, content)

    def _mask(self, prepared: Prepared, content: bytes) -> None:
        """Fill in which latents are learned, (1, h, w): the item's own mask, else its opaque part if asked for."""
        item, crop = prepared.cut.item, prepared.cut.crop
        if item.mask is not None and item.mask.is_file():
            source, path, data = "mask", item.mask, _bytes(item.mask)
            mask_digest = hashlib.sha256(data).hexdigest()
        elif self._settings.alpha_mask:
            source, path, data, mask_digest = "alpha", item.path, content, prepared.digest
        else:
            return
        per_latent = self._family.spec.pixels_per_latent

        def _make() -> dict[str, Tensor]:
            alpha = source == "alpha"
            shown = read_image(path, data).alpha if alpha else read_mask(path, item.width, item.height, data)
            if shown is None:
                return {"mask": torch.ones(1, crop.bucket.height // per_latent, crop.bucket.width // per_latent)}
            return {"mask": in_latents(to_pixels(shown, crop), per_latent)}

        prepared.mask = digest(source, mask_digest, crop, per_latent)
        made = self._cache.get(prepared.mask, _make)["mask"]
        prepared.mask_digest = hashlib.sha256(made.numpy().tobytes()).hexdigest()

    def _encode(self, batch: list[Prepared]) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Fill in the missing posteriors of cuts of one size; gives each with its key.

        What is known already is encoded once more beside what is not: a batch of another shape gives other last bits,
        and a run that was killed while it encoded would not be the same.
        """
        order = [(prepared, mirrored) for prepared in batch for mirrored in prepared.cut.mirrors]
        room = max(BATCH_PX // _pixels(batch[:1]) * len(batch[0].cut.mirrors), 1)
        for start in range(0, len(order), room):
            chosen = order[start : start + room]
            if not any(mirrored in prepared.missing for prepared, mirrored in chosen):
                continue
            self._ready()
            pixels = torch.stack([self._shown(prepared, mirrored) for prepared, mirrored in chosen])
            posterior = self._family.encode_image(normalised(pixels))
            for (prepared, mirrored), mean, std in zip(chosen, posterior.mean, posterior.std, strict=True):
                if not (mean.isfinite().all() and std.isfinite().all()):
                    raise NonFiniteLatents(path=prepared.cut.item.path)
                key = prepared.keys[mirrored]
                if mirrored in prepared.missing and key not in self._made:  # the same image twice is one
                    self._made.add(key)
                    yield key, {"mean": mean.clone(), "std": std.clone()}
        for prepared in batch:
            prepared.missing.clear()

    def _shown(self, prepared: Prepared, mirrored: bool) -> Tensor:
        """A cut's pixels, read again if its posterior is known."""
        if mirrored in prepared.missing:
            return prepared.missing[mirrored]
        item, crop = prepared.cut.item, prepared.cut.crop
        image = read_image(item.path, _bytes(item.path), crop.scaled)
        return to_pixels(image.on(self._settings.background), crop, mirrored)


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[Cut], Prepared], cuts: Sequence[Cut], most: int
) -> Iterator[Prepared]:
    """What is made of the cuts, in order, at most so many ahead of the one that is given."""
    begun: deque[Future[Prepared]] = deque()
    for one in cuts:
        begun.append(pool.submit(work, one))
        if len(begun) > most:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


def _pixels(batch: Sequence[Prepared]) -> int:
    sizes = ((one.cut.crop.bucket, len(one.cut.mirrors)) for one in batch)
    return sum(size.width * size.height * times for size, times in sizes)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImage(path, cause_of(path, error)) from None


def to_pixels(image: Image.Image, crop: Crop, mirrored: bool = False) -> Tensor:
    """An image scaled and cut, (3, H, W) uint8 from RGB, (1, H, W) from gray."""
    shown = np.array(cut(image, crop, mirrored), dtype=np.uint8)
    return torch.from_numpy(shown.reshape(*shown.shape[:2], -1)).permute(2, 0, 1)


def normalised(pixels: Tensor) -> Tensor:
    """What a VAE reads: bytes (…, H, W) as float32 in [-1, 1]."""
    return pixels.float().div(127.5).sub(1.0)


def in_latents(mask: Tensor, pixels_per_latent: int) -> Tensor:
    """Each latent's share of white, (1, h, w) float32 in [0, 1], of a gray image (1, H, W) uint8."""
    return avg_pool2d(mask.float().div(255.0), pixels_per_latent)
