"""What is wrong with the images of a data set, found by decoding each once."""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.contract.errors import isolated
from trainer.contract.settings.config import TrainConfig
from trainer.dataset.buckets import Size
from trainer.dataset.captions import Item
from trainer.dataset.errors import UnreadableImage
from trainer.dataset.images import GAP, read_image
from trainer.dataset.problems import base_of, relative
from trainer.doctor.cases import Sign
from trainer.doctor.duplicates import Likeness, exact_twins, likeness, near_twins
from trainer.doctor.lettering import lettering
from trainer.doctor.sharpness import softness

SIDE_PX = 512  # images are looked at with the area of this square, larger ones scaled down
BLURRY_PX = 2.6  # σ of the sharpest edges at that size
SMALL = 1.1  # enlarged by more than this
NARROW = 2.5  # longer by more than this than wide
SEE_THROUGH = 0.005  # share of the image's opacity that is missing
NOTHING_PX = 64  # a file that ends in as many zero bytes is truncated


@dataclass(frozen=True)
class Sight:
    """What one image shows."""

    broken: str = ""  # why it cannot be decoded
    turned: bool = False
    see_through: float = 0.0
    soft_px: float = 0.0
    letters: bool = False
    likeness: Likeness | None = None


def image_signs(
    items: Sequence[Item], config: TrainConfig, progress: Callable[[int, int], None] | None = None
) -> list[Sign]:
    """Returns what of each image would harm a training with these settings.

    Args:
        items: The images.
        config: For the resolution.
        progress: Called with the images done and the total; what it raises ends the check.
    """
    signs: list[Sign] = []
    whole: dict[Path, Likeness] = {}
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for number, (item, sight) in enumerate(zip(items, pool.map(look_at, items), strict=True), start=1):
            signs += _signs(item, sight, config.dataset.resolution)
            if sight.likeness is not None:
                whole[item.path] = sight.likeness
            if progress:
                progress(number, len(items))
    finally:
        pool.shutdown(cancel_futures=True)  # `progress` may end it early
    return signs + _twins([item for item in items if item.path in whole], whole, base_of(config.dataset.folders))


def look_at(item: Item) -> Sight:
    """Returns what an image shows; cached until its file changes."""
    try:
        seen = item.path.stat()
    except OSError as error:
        return Sight(broken=error.strerror or str(error))
    return _sight(item.path, item.width, item.height, seen.st_mtime_ns, seen.st_size)


@lru_cache(maxsize=20_000)  # 13 kB each
def _sight(path: Path, width: int, height: int, _changed: int, _bytes: int) -> Sight:
    """Decodes an image; a decoder that raises anything else counts as a broken image too."""
    failures: list[str] = []
    with isolated(path.name, lambda _code, message, _hint: failures.append(message)):
        try:
            return _decoded(path, Size(width, height))
        except UnreadableImage as error:
            return Sight(broken=error.cause)
    return Sight(broken=failures[0])


def _decoded(path: Path, size: Size) -> Sight:
    scale = min(SIDE_PX / math.sqrt(size.width * size.height), 1.0)
    smaller = Size(max(round(size.width * scale), 1), max(round(size.height * scale), 1))
    image = read_image(path, covering=smaller)
    if _ends_in_nothing(path):
        return Sight(broken="the end of the file is missing")
    opacity = np.asarray(image.alpha, np.float32).mean() / 255 if image.alpha else 1.0
    shown = image.on("white")
    small = shown.convert("L").resize((smaller.width, smaller.height), Image.Resampling.BICUBIC, reducing_gap=GAP)
    gray = np.asarray(small)
    return Sight(
        turned=image.turned,
        see_through=float(1 - opacity),
        soft_px=softness(gray.astype(np.float32)),
        letters=lettering(gray),
        likeness=likeness(shown, small),
    )


def _ends_in_nothing(path: Path) -> bool:
    """Whether a JPEG ends in zeros, as a broken-off download does; decoders accept that."""
    with path.open("rb") as file:
        head = file.read(2)
        file.seek(-min(NOTHING_PX, path.stat().st_size), os.SEEK_END)
        return head == b"\xff\xd8" and not any(file.read())


def _signs(item: Item, sight: Sight, resolution: int) -> list[Sign]:
    """What is wrong with one image."""
    if sight.broken:
        return [Sign("truncated", item.path, detail=sight.broken)]
    signs = []
    enlarged = resolution / math.sqrt(item.width * item.height)
    longer = max(item.width, item.height) / min(item.width, item.height)
    if enlarged > SMALL:
        size = f"{item.width} x {item.height}"
        signs.append(Sign("too_small", item.path, f"{resolution} x {resolution} px", size))
    if longer > NARROW:
        signs.append(Sign("extreme_aspect", item.path, detail=f"{item.width} x {item.height}"))
    if sight.soft_px > BLURRY_PX:
        edges = f"sharpest edges {sight.soft_px:.1f} px wide" if math.isfinite(sight.soft_px) else "no clear edge"
        signs.append(Sign("blurry", item.path, detail=edges))
    if sight.letters:
        signs.append(Sign("watermark", item.path))
    if sight.see_through > SEE_THROUGH:
        signs.append(Sign("transparent", item.path, detail=f"{sight.see_through:.0%}"))
    if sight.turned:
        signs.append(Sign("exif_rotation", item.path))
    return signs


def _twins(items: Sequence[Item], whole: dict[Path, Likeness], base: Path) -> list[Sign]:
    """Duplicates, named relative to `base`; of two the larger is kept, then the one with a caption."""
    ordered = sorted(items, key=lambda item: (-item.width * item.height, not item.caption, item.path))
    exact = exact_twins([item.path for item in ordered])
    copies = {twin.image for twin in exact}
    near = near_twins({item.path: whole[item.path] for item in ordered if item.path not in copies})
    signs = [
        Sign("exact_duplicate", twin.image, detail=f"as {relative(twin.kept, base)}", beside=(twin.kept,))
        for twin in exact
    ]
    for twin in near:
        detail = f"as {relative(twin.kept, base)}{', mirrored' if twin.mirrored else ''}"
        signs.append(Sign("near_duplicate", twin.image, detail=detail, beside=(twin.kept,)))
    return signs
