"""Render the demo data sets into `assets/demo`: a style (OpenMoji) and a character (Noto's cat), with captions.

The demo presets train on `train`; `measure` is held out and only compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from assets.pocket.build.common import MODEL, phrase
from assets.pocket.build.render import CAT_FACES, draw, load_icons

DEMO = MODEL.parent / "demo"
DEMO_PX = 256
STYLE_TRAIN = [
    "red-apple",
    "banana",
    "carrot",
    "cherries",
    "pizza",
    "hamburger",
    "doughnut",
    "cat",
    "dog-face",
    "fish",
    "butterfly",
    "frog",
    "owl",
    "rabbit-face",
    "grinning-face",
    "angry-face",
    "red-heart",
    "star",
    "sun",
    "umbrella",
    "rocket",
    "house",
    "bicycle",
    "guitar",
]
STYLE_MEASURE = [
    "strawberry",
    "watermelon",
    "ice-cream",
    "lemon",
    "penguin",
    "fox",
    "octopus",
    "panda",
    "snail",
    "smiling-face-with-sunglasses",
    "crying-face",
    "robot",
    "airplane",
    "sailboat",
    "bell",
    "key",
]
CHARACTER_MEASURE = ("smiling-cat-with-heart-eyes", "crying-cat")


def save(folder: Path, icons: Sequence[str], drawings: Mapping[str, str]) -> None:
    """Write each icon as PNG with a caption of its content."""
    folder.mkdir(parents=True, exist_ok=True)
    for icon in icons:
        draw(drawings[icon], DEMO_PX).save(folder / f"{icon}.png", optimize=True)
        (folder / f"{icon}.txt").write_text(f"{phrase(icon)}\n", encoding="utf-8")


if __name__ == "__main__":
    openmoji, noto = load_icons("openmoji"), load_icons("noto")
    save(DEMO / "style" / "train", STYLE_TRAIN, openmoji)
    save(DEMO / "style" / "measure", STYLE_MEASURE, openmoji)
    save(DEMO / "character" / "train", [icon for icon in CAT_FACES if icon not in CHARACTER_MEASURE], noto)
    save(DEMO / "character" / "measure", CHARACTER_MEASURE, noto)
