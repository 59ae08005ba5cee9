"""Sheets of images: before/after of a run's prompts, and the strength strip of one LoRA file."""

import io
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from trainer.contract.events import RunView, Sample
from trainer.contract.files import atomic_write
from trainer.runs.folder import RunFolder

CELL_PX, GAP_PX, TEXT_PX = 192, 12, 15
INK, PAPER, FAINT = "#24252a", "#ffffff", "#6b6f78"
TOP_PX = 2 * GAP_PX + TEXT_PX  # a line of text above the first row
UNDER_PX = 3 * TEXT_PX + GAP_PX  # the prompt under a row, and room before the next
COLUMNS = 4
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)


def before_after(run: RunFolder, view: RunView) -> Path | None:
    """Write `before-after.png` into the run folder; None if there are not two steps to compare."""
    pairs = _pairs([sample for sample in view.samples if run.inside(sample.file).is_file()])
    if not pairs:
        return None
    columns = _columns(len(pairs))
    rows = -(-len(pairs) // columns)
    width = columns * (2 * CELL_PX + 2 * GAP_PX) + GAP_PX
    sheet, pen, font = _blank(width, rows, CELL_PX)
    first, last = pairs[0][0].step, pairs[0][1].step
    start = Path(run.config().adapter.start_from).name or "without LoRA"
    pen.text((GAP_PX, GAP_PX // 2), f"left: step {first}, {start}   ·   right: step {last}", FAINT, font)
    for number, (before, after) in enumerate(pairs):
        left = GAP_PX + number % columns * (2 * CELL_PX + 2 * GAP_PX)
        top = TOP_PX + number // columns * (CELL_PX + UNDER_PX)
        for place, sample in enumerate((before, after)):
            with Image.open(run.inside(sample.file), formats=["PNG"]) as image:
                sheet.paste(_fitted(image), (left + place * (CELL_PX + GAP_PX // 2), top))
        pen.text((left, top + CELL_PX + 4), _cut(before.prompt, font, 2 * CELL_PX), INK, font)
    target = run.path / "before-after.png"
    atomic_write(target, _png(sheet))
    return target


def strip_name(lora_file: str) -> str:
    """The name of the strength strip that lies beside a LoRA file."""
    return f"{lora_file.removesuffix('.safetensors')}.strength.png"


def strength_sheet(prompts: Sequence[str], images: Sequence[Image.Image]) -> bytes:
    """The strength strip as a PNG: a row for each prompt, a column for each of STRENGTHS.

    Args:
        prompts: At least one.
        images: Row by row, all of one size.
    """
    cells = [_fitted(image) for image in images]
    width, height = cells[0].size
    pitch = width + GAP_PX // 2
    sheet, pen, font = _blank(2 * GAP_PX + len(STRENGTHS) * pitch - GAP_PX // 2, len(prompts), height)
    for column, strength in enumerate(STRENGTHS):
        pen.text((GAP_PX + column * pitch, GAP_PX // 2), f"{strength:g}", FAINT, font)
    for number, cell in enumerate(cells):
        row, column = divmod(number, len(STRENGTHS))
        sheet.paste(cell, (GAP_PX + column * pitch, TOP_PX + row * (height + UNDER_PX)))
    for row, prompt in enumerate(prompts):
        under = TOP_PX + row * (height + UNDER_PX) + height + 4
        pen.text((GAP_PX, under), _cut(prompt, font, sheet.width - 2 * GAP_PX), INK, font)
    return _png(sheet)


def _blank(width_px: int, rows: int, cell_px: int) -> tuple[Image.Image, ImageDraw.ImageDraw, Font]:
    """Paper for rows of images, `cell_px` high with a line of text under each; and what to write on it with."""
    sheet = Image.new("RGB", (width_px, TOP_PX + rows * (cell_px + UNDER_PX)), PAPER)
    return sheet, ImageDraw.Draw(sheet), ImageFont.load_default(TEXT_PX)


def _fitted(image: Image.Image) -> Image.Image:
    """The image, scaled to fill a cell and stay inside it; a small one in whole pixels, which keeps it sharp."""
    times = CELL_PX // max(image.size)
    if times > 1:
        return image.convert("RGB").resize((times * image.width, times * image.height), Image.Resampling.NEAREST)
    return ImageOps.contain(image.convert("RGB"), (CELL_PX, CELL_PX), Image.Resampling.LANCZOS)


def _png(sheet: Image.Image) -> bytes:
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


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


def _cut(text: str, font: Font, width_px: int) -> str:
    """The text on one line, shortened with an ellipsis to fit."""
    text = " ".join(text.split())
    if font.getlength(text) <= width_px:
        return text
    fits = bisect_right(range(len(text)), float(width_px), key=lambda letters: font.getlength(text[:letters] + "…")) - 1
    return text[: max(fits, 0)].rstrip() + "…"
