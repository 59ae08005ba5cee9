"""Step 2: render the icons, 56 px centered on 64 px white, into one memory-mapped array."""

from __future__ import annotations

import io
import json
import re

import numpy as np
from PIL import Image

from assets.pocket.build.common import BASE_STYLES, ICON_SETS, PICTURE_PX, WORK, concepts

ICON_PX = 16  # Iconify's side of icons of which a set says none
OVERSAMPLING = 4  # rendered larger and averaged, so that thin outlines keep their weight
# Skin tones and flags are never rendered; cats' faces only for the character demo.
SKIP = re.compile(r"skin-tone|^flag-|^regional-indicator|^keycap|^input-|-button$")
CAT_FACES = (
    "cat-face",
    "grinning-cat",
    "grinning-cat-with-smiling-eyes",
    "cat-with-tears-of-joy",
    "smiling-cat-with-heart-eyes",
    "cat-with-wry-smile",
    "kissing-cat",
    "weary-cat",
    "crying-cat",
    "pouting-cat",
)


def load_icons(style: str) -> dict[str, str]:
    """Icon name to complete SVG text of a set, without hidden icons."""
    icons = json.loads((WORK / "icons" / style / "package" / "icons.json").read_text(encoding="utf-8"))
    return {
        name: f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {box} {box}">{icon["body"]}</svg>'
        for name, icon in icons["icons"].items()
        if not icon.get("hidden")
        for box in [icon.get("width", icons.get("width", ICON_PX))]
    }


def draw(svg: str, picture_px: int = PICTURE_PX) -> Image.Image:
    """One icon on a white square, RGB, with a sixteenth of the side as margin; averaged from a larger rendering."""
    import resvg_py  # an extra that only rendering needs, not every import of this module

    canvas_px = picture_px * OVERSAMPLING
    margin = canvas_px // 16
    side = canvas_px - 2 * margin
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side))
    icon = Image.open(io.BytesIO(png)).convert("RGBA")
    picture = Image.new("RGBA", (canvas_px, canvas_px), "white")
    picture.alpha_composite(icon, (margin, margin))
    return picture.convert("RGB").reduce(OVERSAMPLING)


def render() -> None:
    """Write `work/pictures.npy` and its row names; OpenMoji only for base concepts, they are demo data."""
    names: list[tuple[str, str]] = []
    pixels: list[np.ndarray] = []
    for style in ICON_SETS:
        for name, svg in load_icons(style).items():
            if not SKIP.search(name) and (style in BASE_STYLES or name in concepts()):
                names.append((style, name))
                pixels.append(np.asarray(draw(svg)))
    np.save(WORK / "pictures.npy", np.stack(pixels))
    (WORK / "pictures.json").write_text(json.dumps(names))


if __name__ == "__main__":
    render()
