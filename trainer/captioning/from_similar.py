"""Captions suggested by the captioned images of a set that look most alike."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.dataset.buckets import Size
from trainer.dataset.captions import Item, tags_of
from trainer.dataset.errors import UnreadableImage
from trainer.dataset.images import read_image

SIDE, CELLS, ANGLES = 32, 4, 8  # px of the small image, its cells along a side, bins of edge directions
NEIGHBOURS = 3
COLOUR, FAINT = 0.5, 3.0  # weight of colors beside edges; an amount of edges so small that they hardly count
SAME, FAR = 0.1, 0.9  # distances: hardly another image; unrelated ones lie more than 1 apart

Floats = NDArray[np.float32]


def descriptor(image: Image.Image) -> Floats:
    """What an image looks like, (176,): colors and directions of edges in each of 4×4 cells.

    The cells of edges are histograms of oriented gradients (Dalal and Triggs 2005, doi:10.1109/CVPR.2005.177).
    """
    small = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX), np.float32) / 255
    red, green, blue = np.moveaxis(small, -1, 0)
    gray = small.mean(axis=-1)
    opponents = np.stack([gray - 0.5, red - green, (red + green) / 2 - blue], axis=-1)
    colors = opponents.reshape(CELLS, SIDE // CELLS, CELLS, SIDE // CELLS, 3).mean(axis=(1, 3)).ravel()
    down, right = np.gradient(gray)
    angle = np.arctan2(down, right) % np.pi / np.pi * ANGLES
    lower = np.floor(angle).astype(int)
    cell = np.arange(SIDE) * CELLS // SIDE
    first = (cell[:, None] * CELLS + cell[None, :]) * ANGLES
    edges = np.zeros(CELLS * CELLS * ANGLES)
    for place, share in ((lower, 1 - angle + lower), (lower + 1, angle - lower)):  # an edge between two directions
        np.add.at(edges, first + place % ANGLES, np.hypot(down, right) * share)
    edges /= np.linalg.norm(edges) + FAINT
    described: Floats = np.concatenate([colors * COLOUR, edges]).astype(np.float32)
    return described


def look_at(path: Path) -> Floats:
    """The descriptor of an image file.

    Raises:
        UnreadableImage: It cannot be decoded.
    """
    return descriptor(read_image(path, covering=Size(SIDE, SIDE)).on("white"))


class Nearest:
    """The captioned images of a set, asked for what another one may show."""

    def __init__(self, items: Sequence[Item], progress: Callable[[int, int], None]) -> None:
        """Looks at every captioned image; `progress` is called with the images done and the total."""
        self.items: list[Item] = []
        seen: list[Floats] = []
        captioned = [item for item in items if item.caption]
        for number, item in enumerate(captioned):
            progress(number, len(captioned))
            try:
                seen.append(look_at(item.path))
            except UnreadableImage:  # it has a caption, and nobody asked for another
                continue
            self.items.append(item)
        self.seen = np.stack(seen) if seen else np.zeros((0, 1), np.float32)

    def suggest(self, item: Item) -> str:
        """The caption of an image that is nearly the same, else the tags that most of the nearest share, else nothing.

        Raises:
            UnreadableImage: The image cannot be decoded.
        """
        if not self.items:
            return ""
        distances = np.linalg.norm(self.seen - look_at(item.path), axis=1)
        order = [int(place) for place in np.argsort(distances, kind="stable")[: NEIGHBOURS + 1]]
        near = [place for place in order if self.items[place].path != item.path and distances[place] <= FAR]
        near = near[:NEIGHBOURS]
        if not near:
            return ""
        tags = [tags_of(self.items[place].caption) for place in near]
        if distances[near[0]] <= SAME:
            return ", ".join(tags[0])
        count = Counter(tag for one in tags for tag in dict.fromkeys(one))
        return ", ".join(tag for tag in dict.fromkeys(tags[0] + tags[-1]) if 2 * count[tag] > NEIGHBOURS)
