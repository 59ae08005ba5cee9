"""Styles and characters that pocket has never seen: to test the style axis, and to choose the demo presets on.

`python -m assets.pocket.build.styles` downloads the icon sets, renders a folder of images with captions for each into
`work/styles` and `work/characters`, as `demos.py` does for the demos, and the test's images into `tests/fixtures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from assets.pocket.build.common import ICON_SETS, MODEL, PLAIN_STYLE, WORK, concepts
from assets.pocket.build.demos import CHARACTER_MEASURE, STYLE_MEASURE, STYLE_TRAIN, save
from assets.pocket.build.fetch import fetch_icons
from assets.pocket.build.render import CAT_FACES, draw, load_icons

# Iconify's packages, pinned, all under permissive licenses; a suffix chooses one of several styles in a set
STYLE_SETS = {
    "3d": ("fluent-emoji@1.2.7", ""),
    "flat": ("twemoji@1.2.5", ""),
    "monochrome": ("fluent-emoji-high-contrast@1.2.6", ""),
    "silhouette": ("emojione-monotone@1.2.1", ""),
    "sketch": ("streamline-emojis@1.2.4", ""),
    "line": ("lucide@1.2.137", ""),
    "duotone": ("ph@1.2.2", "-duotone"),
    "blob": ("noto-v1@1.2.5", ""),
}
CHARACTER_SETS = ("openmoji", "fluent", "flat", "3d")  # of cats, beside the demo's
FIXTURES = MODEL.parents[1] / "tests" / "fixtures" / "styles"  # NAME.webp: the style above the base, a column a concept
FIT_COUNT, HELD_OUT_COUNT = 24, 12


def drawings(style: str) -> dict[str, str]:
    """Concept to SVG text of a style, of those that pocket knows and of cat faces."""
    suffix = STYLE_SETS.get(style, ("", ""))[1]
    icons = load_icons(style)
    return {name: icons[name + suffix] for name in [*concepts(), *CAT_FACES] if name + suffix in icons}


def names_for(style: str) -> tuple[list[str], list[str]]:
    """Concepts to fit on and concepts held out, those of the style demo first."""
    there = drawings(style)
    free = [name for name in concepts() if name in there and name not in STYLE_TRAIN + STYLE_MEASURE]
    held_out = [name for name in STYLE_MEASURE if name in there][:HELD_OUT_COUNT]
    held_out += free[: HELD_OUT_COUNT - len(held_out)]
    fit = [name for name in chain(STYLE_TRAIN, free) if name in there and name not in held_out]
    return fit[:FIT_COUNT], held_out


def row_of(style: str, names: Sequence[str]) -> np.ndarray:
    """The style's images of these concepts side by side, (64, 64 N, 3)."""
    there = drawings(style)
    return np.concatenate([np.asarray(draw(there[name])) for name in names], axis=1)


def write_fixture(style: str, folder: Path = FIXTURES) -> None:
    """Write a style's images for the test above the base's of the same concepts: those to fit on, then the others."""
    names = list(chain(*names_for(style)))
    folder.mkdir(parents=True, exist_ok=True)
    sheet = np.concatenate([row_of(style, names), row_of(PLAIN_STYLE, names)])
    Image.fromarray(sheet).save(folder / f"{style}.webp", lossless=True, quality=100, method=6)


if __name__ == "__main__":
    fetch_icons(ICON_SETS | {style: package for style, (package, _) in STYLE_SETS.items()})
    for name in ["openmoji", *STYLE_SETS]:
        write_fixture(name)
        fit_names, held_out_names = names_for(name)
        save(WORK / "styles" / name / "train", fit_names, drawings(name))
        save(WORK / "styles" / name / "measure", held_out_names, drawings(name))
    for name in CHARACTER_SETS:
        train_names = [icon for icon in CAT_FACES if icon not in CHARACTER_MEASURE]
        save(WORK / "characters" / name / "train", train_names, drawings(name))
        save(WORK / "characters" / name / "measure", CHARACTER_MEASURE, drawings(name))
