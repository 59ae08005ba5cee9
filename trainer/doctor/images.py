"""What is wrong with the images of a data set, found by decoding each once."""

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trainer.contract.home import Home
from trainer.contract.settings.config import TrainConfig
from trainer.dataset.captions import Item
from trainer.dataset.formats import version_of
from trainer.dataset.problems import base_of, relative
from trainer.doctor.cases import Sign
from trainer.doctor.duplicates import Likeness, Twin, exact_twins, near_twins
from trainer.doctor.kept import Kept, folders_of, records
from trainer.doctor.sight import Sight, look_at

BLURRY_PX = 2.6  # σ of the sharpest edges at `SIDE_PX`
SMALL = 1.1  # enlarged by more than this
NARROW = 2.5  # longer by more than this than wide
SEE_THROUGH = 0.005  # share of the image's opacity that is missing
SIGHTS = records(Sight)


DIGESTS = records(str)
TWINS = records(list[tuple[int, int, bool]])  # which image, of which it is a duplicate, and whether mirrored


def image_signs(
    items: Sequence[Item],
    config: TrainConfig,
    home: Home,
    progress: Callable[[int, int], None] | None = None,
) -> list[Sign]:
    """Returns what of each image would harm a training with these settings.

    Args:
        items: The images.
        config: For the resolution.
        home: In whose cache measurements are kept: images that have not changed are not decoded again.
        progress: Called with the images done and the total; what it raises ends the check.

    Raises:
        NotOurs: The cache, or a file of it, is a link or nothing plain.
    """
    signs: list[Sign] = []
    whole: dict[Path, Likeness] = {}
    for number, (item, sight) in enumerate(_sights(items, Kept(home, "images", SIGHTS, folders_of(config))), start=1):
        signs += _signs(item, sight, config.dataset.resolution)
        if sight.likeness is not None:
            whole[item.path] = sight.likeness
        if progress:
            progress(number, len(items))
    return signs + _twins([item for item in items if item.path in whole], whole, config, home)


def _sights(items: Sequence[Item], kept: Kept[Sight]) -> Iterator[tuple[Item, Sight]]:
    """Each image and what it shows; that of unchanged ones is known, others are decoded, several at once."""

    def sight_of(item: Item) -> tuple[str, Sight]:
        """The file's version, and what it shows."""
        try:
            seen = version_of(item.path)
        except OSError as error:
            return "", Sight(broken=error.strerror or str(error), lasting=False)
        return seen, kept.find(item.path, seen) or look_at(item)

    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for item, (seen, sight) in zip(items, pool.map(sight_of, items), strict=True):
            if sight.lasting:
                kept.keep(item.path, seen, sight)
            yield item, sight
    finally:
        pool.shutdown(cancel_futures=True)  # who asks may end it early
        kept.save()


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


def _twins(items: Sequence[Item], whole: dict[Path, Likeness], config: TrainConfig, home: Home) -> list[Sign]:
    """Duplicates; of two the larger is kept, then the one with a caption."""
    base = base_of(config.dataset.folders)
    ordered = sorted(items, key=lambda item: (-item.width * item.height, not item.caption, item.path))
    digests = Kept(home, "digests", DIGESTS, folders_of(config))
    exact = exact_twins([item.path for item in ordered], lambda path: _digest(path, digests))
    digests.save()
    copies = {twin.image for twin in exact}
    near = _near_twins({item.path: whole[item.path] for item in ordered if item.path not in copies}, config, home)
    signs = [
        Sign("exact_duplicate", twin.image, detail=f"as {relative(twin.kept, base)}", beside=(twin.kept,))
        for twin in exact
    ]
    for twin in near:
        detail = f"as {relative(twin.kept, base)}{', mirrored' if twin.mirrored else ''}"
        signs.append(Sign("near_duplicate", twin.image, detail=detail, beside=(twin.kept,)))
    return signs


def _digest(path: Path, kept: Kept[str]) -> str:
    """SHA-256 of a file."""
    seen = version_of(path)
    known = kept.find(path, seen)
    if known is None:
        with path.open("rb") as file:
            known = hashlib.file_digest(file, "sha256").hexdigest()
        kept.keep(path, seen, known)
    return known


def _near_twins(album: dict[Path, Likeness], config: TrainConfig, home: Home) -> list[Twin]:
    """The near-duplicates of an album; comparing a long series takes long, so the last answer for a folder is kept."""
    paths = list(album)
    seen = hashlib.sha256(b"".join(b"%016x%s" % (one.code, one.small) for one in album.values())).hexdigest()
    kept = Kept(home, "twins", TWINS, folders_of(config))
    folder = paths[0].parent if paths else Path()
    known = kept.find(folder, seen)
    if known is not None:
        return [Twin(paths[image], paths[first], mirrored) for image, first, mirrored in known]
    twins = near_twins(album)
    place = {path: number for number, path in enumerate(paths)}
    kept.keep(folder, seen, [(place[twin.image], place[twin.kept], twin.mirrored) for twin in twins])
    kept.save()
    return twins
