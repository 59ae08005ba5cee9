"""Masks that leave nothing to learn, found before a training: as the model would see them, scaled and cropped."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from PIL import Image

from trainer.contract.home import Home
from trainer.contract.settings.config import TrainConfig
from trainer.contract.settings.dataset import DatasetSettings
from trainer.dataset.buckets import Crop, Size, crops, grid_step
from trainer.dataset.captions import Item
from trainer.dataset.errors import UnreadableImage
from trainer.dataset.formats import image_size, version_of
from trainer.dataset.images import LATENT_PX, cut, leaves_nothing, read_image, read_mask, same_shape
from trainer.dataset.problems import Problem, base_of, masks_emptied, masks_unreadable
from trainer.doctor.kept import Folders, Kept, folders_of, records
from trainer.models.lookup import depths_of

EMPTIED = records(dict[str, bool])  # by a digest of the sizes that it is trained at
SIZES_KEPT = 8  # for as many changes of settings


@dataclass(frozen=True)
class Look:
    """What a mask leaves, and how that is remembered."""

    path: Path
    seen: str  # its version
    sizes: str  # a digest of those that it is trained at
    emptied: bool


def mask_problems(items: Sequence[Item], config: TrainConfig, home: Home) -> list[Problem]:
    """Returns which images have a mask of which nothing is left at the sizes they are trained at, or a truncated one.

    What a mask's header says against it, the reader of the folder has noticed before.

    Args:
        items: The images. With `alpha_mask`, transparency is the mask of those that have no other.
        config: For resolution and base model, which decide how images are cropped.
        home: In whose cache findings are kept: masks that have not changed are not decoded again.

    Raises:
        NotOurs: The cache, or a file of it, is a link or nothing plain.
    """
    step, rules = grid_step(*depths_of(config.model)), config.dataset
    masked = [item for item in items if _own(item) or (rules.alpha_mask and not item.mask)]
    empty: list[Item] = []
    broken: list[tuple[Item, UnreadableImage]] = []
    kept = Kept(home, "masks", EMPTIED, _with_overlays(config) if masked else Folders([]))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for item, found in zip(masked, pool.map(lambda item: _look(item, step, rules, kept), masked), strict=True):
            if isinstance(found, UnreadableImage):
                broken.append((item, found))
            elif found:
                _keep(found, kept)
                empty += [item] if found.emptied else []
    kept.save()
    base = base_of(config.dataset.folders)
    return [*masks_emptied(empty, base), *masks_unreadable(broken, base)]


def _own(item: Item) -> Path | None:
    """The item's mask file, if its header fits the image."""
    if item.mask is None or not item.mask.is_file():
        return None
    with suppress(UnreadableImage):
        return item.mask if same_shape(*image_size(item.mask), item.width, item.height) else None
    return None


def _look(item: Item, step: int, rules: DatasetSettings, kept: Kept[dict[str, bool]]) -> Look | UnreadableImage | None:
    """Whether anything of the item's mask is left at its sizes, or why that cannot be seen; None for no mask at all."""
    path, made = item.mask or item.path, tuple(crops(item.width, item.height, item.focus, step, rules))
    size = Size(item.width, item.height)
    sizes = sha256(repr((item.mask is not None, size, made)).encode()).hexdigest()[:16]
    try:
        seen = version_of(path)
        known = (kept.find(path, seen) or {}).get(sizes)
        return Look(path, seen, sizes, _emptied(path, item.mask is not None, size, made) if known is None else known)
    except UnreadableImage as error:
        return error if item.mask else None  # a damaged image is another finding
    except OSError as error:
        return UnreadableImage(path, error.strerror or str(error)) if item.mask else None


def _keep(found: Look, kept: Kept[dict[str, bool]]) -> None:
    """Note what a mask leaves, beside what it leaves at other sizes."""
    known = kept.find(found.path, found.seen) or {}
    if found.sizes not in known:
        newest = list(known.items())[1 - SIZES_KEPT :]
        kept.keep(found.path, found.seen, {**dict(newest), found.sizes: found.emptied})


def _with_overlays(config: TrainConfig) -> Folders:
    """The image folders, and those of their overlays, where masks drawn here lie."""
    dataset = config.dataset
    captions = [dataset.captions, *(concept.captions for concept in dataset.concepts)]
    return Folders([*folders_of(config).roots, *(Path(one).parent for one in captions if one)])


def _emptied(path: Path, own: bool, size: Size, made: tuple[Crop, ...]) -> bool:
    """Whether a mask of its own, or an image's opacity, is black in one of these crops.

    Raises:
        UnreadableImage: It cannot be decoded.
    """
    mask = read_mask(path, *size) if own else read_image(path).alpha
    return mask is not None and any(leaves_nothing(shown) for shown in _shown(mask, made))


def _shown(mask: Image.Image, made: Sequence[Crop]) -> Iterator[Image.Image]:
    """The mask in each of the crops, averaged over latents."""
    for crop in made:
        yield cut(mask, crop).reduce(LATENT_PX)
