"""The before/after sheet: each preview prompt's picture at step 0 beside its newest."""

from __future__ import annotations

import io
from bisect import bisect_right
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from trainer.contract.events import RunView, Sample
from trainer.contract.home import atomic_write
from trainer.contract.runs import RunFolder

CELL_PX, GAP_PX, TEXT_PX = 192, 12, 15
INK, PAPER, FAINT = "#24252a", "#ffffff", "#6b6f78"
COLUMNS = 4


def before_after(run: RunFolder, view: RunView) -> Path | None:
    """Write `before-after.png` into the run folder; None if there are not two steps to compare."""
    pairs = _pairs([sample for sample in view.samples if run.inside(sample.file).is_file()])
    if not pairs:
        return None
    columns = _columns(len(pairs))
    rows = -(-len(pairs) // columns)
    width = columns * (2 * CELL_PX + 2 * GAP_PX) + GAP_PX
    height = rows * (CELL_PX + 3 * TEXT_PX + GAP_PX) + 2 * GAP_PX + TEXT_PX
    sheet = Image.new("RGB", (width, height), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT_PX)
    first, last = pairs[0][0].step, pairs[0][1].step
    pen.text((GAP_PX, GAP_PX // 2), f"left: step {first}, without LoRA   ·   right: step {last}", FAINT, font)
    for number, (before, after) in enumerate(pairs):
        left = GAP_PX + number % columns * (2 * CELL_PX + 2 * GAP_PX)
        top = 2 * GAP_PX + TEXT_PX + number // columns * (CELL_PX + 3 * TEXT_PX + GAP_PX)
        for place, sample in enumerate((before, after)):
            with Image.open(run.inside(sample.file)) as picture:
                shown = ImageOps.contain(picture.convert("RGB"), (CELL_PX, CELL_PX), Image.Resampling.LANCZOS)
            sheet.paste(shown, (left + place * (CELL_PX + GAP_PX // 2), top))
        pen.text((left, top + CELL_PX + 4), _cut(before.prompt, font, 2 * CELL_PX), INK, font)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    target = run.path / "before-after.png"
    atomic_write(target, buffer.getvalue())
    return target


def _columns(pairs: int) -> int:
    """Pairs side by side: of two and up, what leaves the fewest places empty, and rather more of them than fewer."""
    most = min(COLUMNS, pairs)
    return min(range(most, most // 2, -1), key=lambda columns: -pairs % columns)


def _pairs(samples: list[Sample]) -> list[tuple[Sample, Sample]]:
    """First and newest sample of each prompt, where they differ in step."""
    by_index: dict[int, list[Sample]] = {}
    for sample in samples:
        by_index.setdefault(sample.index, []).append(sample)
    return [(s[0], s[-1]) for _, s in sorted(by_index.items()) if s[0].step != s[-1].step]


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> str:
    """The text on one line, shortened with an ellipsis to fit."""
    text = " ".join(text.split())
    if font.getlength(text) <= width_px:
        return text
    fits = bisect_right(range(len(text)), float(width_px), key=lambda letters: font.getlength(text[:letters] + "…")) - 1
    return text[: max(fits, 0)].rstrip() + "…"
