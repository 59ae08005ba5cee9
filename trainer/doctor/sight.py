"""What one image shows, seen by decoding it once, and how its file is recognized the next time."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.contract.errors import isolated
from trainer.dataset.buckets import Size
from trainer.dataset.captions import Item
from trainer.dataset.errors import UnreadableImage
from trainer.dataset.images import GAP, read_image
from trainer.doctor.duplicates import Likeness, likeness
from trainer.doctor.lettering import lettering
from trainer.doctor.sharpness import softness

SIDE_PX = 512  # images are looked at with the area of this square, larger ones scaled down
NOTHING_PX = 64  # a file that ends in as many zero bytes is truncated


@dataclass(frozen=True)
class Sight:
    """What one image shows."""

    broken: str = ""  # why it cannot be decoded
    lasting: bool = True  # so is it, until its file changes; else it was refused by the system, or for want of memory
    turned: bool = False
    see_through: float = 0.0
    soft_px: float = 0.0
    letters: bool = False
    likeness: Likeness | None = None


def look_at(item: Item) -> Sight:
    """Returns what an image shows; a decoder that raises anything else counts as a broken image too."""
    failures: list[str] = []
    with isolated(item.path.name, lambda _code, message, _hint: failures.append(message)):
        try:
            return _decoded(item.path, Size(item.width, item.height))
        except UnreadableImage as error:
            return Sight(broken=error.cause, lasting=not _may_pass(error.__context__))
        except OSError as error:
            return Sight(broken=error.strerror or str(error), lasting=False)
    return Sight(broken=failures[0], lasting=False)


def _may_pass(cause: BaseException | None) -> bool:
    """Whether it is nothing about the file: the system's errors have a number, a decoder's have none."""
    return isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno is not None)


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
