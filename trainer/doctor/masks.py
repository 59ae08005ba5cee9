"""Masks that leave nothing to learn, found before a training: as the model would see them, scaled and cropped."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from PIL import Image

from trainer.contract.settings.config import TrainConfig
from trainer.contract.settings.dataset import DatasetSettings
from trainer.dataset.buckets import Crop, Size, crops, grid_step
from trainer.dataset.captions import Item
from trainer.dataset.errors import UnreadableImage
from trainer.dataset.formats import image_size
from trainer.dataset.images import LATENT_PX, cut, leaves_nothing, read_image, read_mask, same_shape
from trainer.dataset.problems import Problem, base_of, masks_emptied, masks_unreadable
from trainer.models.lookup import depths_of


def mask_problems(items: Sequence[Item], config: TrainConfig) -> list[Problem]:
    """Returns which images have a mask of which nothing is left at the sizes they are trained at, or a truncated one.

    What a mask's header says against it, the reader of the folder has noticed before.

    Args:
        items: The images. With `alpha_mask`, transparency is the mask of those that have no other.
        config: For resolution and base model, which decide how images are cropped.
    """
    step, rules = grid_step(*depths_of(config.model)), config.dataset
    masked = [item for item in items if _own(item) or (rules.alpha_mask and not item.mask)]
    empty: list[Item] = []
    broken: list[tuple[Item, UnreadableImage]] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for item, found in zip(masked, pool.map(lambda item: _look(item, step, rules), masked), strict=True):
            if isinstance(found, UnreadableImage):
                broken.append((item, found))
            elif found:
                empty.append(item)
    base = base_of(config.dataset.folders)
    return [*masks_emptied(empty, base), *masks_unreadable(broken, base)]


def _own(item: Item) -> Path | None:
    """The item's mask file, if its header fits the image."""
    if item.mask is None or not item.mask.is_file():
        return None
    with suppress(UnreadableImage):
        return item.mask if same_shape(*image_size(item.mask), item.width, item.height) else None
    return None


def _look(item: Item, step: int, rules: DatasetSettings) -> bool | UnreadableImage:
    """Whether nothing of the item's mask is left at one of its sizes, or why that cannot be seen."""
    path, made = item.mask or item.path, tuple(crops(item.width, item.height, item.focus, step, rules))
    try:
        seen = path.stat()
        size = Size(item.width, item.height)
        return _emptied(path, item.mask is not None, size, made, seen.st_mtime_ns, seen.st_size)
    except UnreadableImage as error:
        return error if item.mask else False  # a damaged image is another finding
    except OSError as error:
        return UnreadableImage(path, error.strerror or str(error)) if item.mask else False


@lru_cache(maxsize=100_000)  # a plan is made anew after every change of a setting
def _emptied(path: Path, own: bool, size: Size, made: tuple[Crop, ...], _changed: int, _bytes: int) -> bool:
    """Whether a mask of its own, or an image's opacity, is black in one of these crops; the last two key the cache.

    Raises:
        UnreadableImage: It cannot be decoded.
    """
    mask = read_mask(path, *size) if own else read_image(path).alpha
    return mask is not None and any(leaves_nothing(shown) for shown in _shown(mask, made))


def _shown(mask: Image.Image, made: Sequence[Crop]) -> Iterator[Image.Image]:
    """The mask in each of the crops, averaged over latents."""
    for crop in made:
        yield cut(mask, crop).reduce(LATENT_PX)
