"""Two previews of one prompt on top of each other, with a line to drag between them."""

from __future__ import annotations

from typing import TypedDict

from app.kit.component import Element
from app.kit.text import words
from app.live.monitor import Watch
from app.server.files import run_url

TEMPLATE = """
<figure class="compare" hidden>
  <div class="compare-bar">
    <label><span class="compare-word-prompt"></span> <select class="compare-prompt"></select></label>
    <label><span class="compare-word-left"></span> <select class="compare-left"></select></label>
    <label><span class="compare-word-right"></span> <select class="compare-right"></select></label>
  </div>
  <div class="compare-stage">
    <img class="compare-after" alt="">
    <img class="compare-before" alt="">
    <input class="compare-slide" type="range" min="0" max="100" value="50">
  </div>
</figure>
"""

STYLE = """
.compare { margin: 0; color: var(--body-text-color); }
.compare-bar { display: flex; flex-wrap: wrap; gap: 6px 14px; margin-bottom: 8px; font-size: 13px; }
.compare-bar label { color: var(--body-text-color-subdued); }
.compare-bar select {
  max-width: 260px; min-height: 32px; padding: 2px 26px 2px 8px; font-size: 13px; border-radius: var(--radius-sm);
  border: 1px solid var(--border-color-primary); background-color: var(--input-background-fill);
  color: var(--body-text-color);
}
.compare-stage {
  position: relative; width: min(100%, 384px); aspect-ratio: 1; --at: 50%; border-radius: 10px; overflow: hidden;
  border: 1px solid var(--border-color-primary);
}
.compare-stage img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; }
.compare-before { clip-path: inset(0 calc(100% - var(--at)) 0 0); }
.compare-stage::after {
  content: ""; position: absolute; top: 0; bottom: 0; left: var(--at); width: 2px; margin-left: -1px;
  background: var(--color-accent); pointer-events: none;
}
.compare-slide { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize; }
.compare-stage:has(:focus-visible) { outline: 2px solid var(--color-accent); outline-offset: 2px; }
"""


class Row(TypedDict):
    """One prompt's previews: [step, address], in order of step."""

    prompt: str
    images: list[tuple[int, str]]


class CompareData(TypedDict):
    """What the element shows, ready for JSON."""

    rows: list[Row]
    words: dict[str, str]


def compare_data(watch: Watch, language: str) -> CompareData:
    """The prompts that have previews of at least two steps."""
    rows: dict[int, Row] = {}
    for sample in sorted(watch.view.samples, key=lambda sample: (sample.index, sample.step)):
        row = rows.setdefault(sample.index, {"prompt": sample.prompt, "images": []})
        row["images"].append((sample.step, run_url(watch.run, sample.file)))
    compared = [row for row in rows.values() if len(row["images"]) > 1]
    return {"rows": compared, "words": words(language, "compare.")}


class Compare(Element):
    """Drag to compare; the feed brings it what `compare_data` gives."""

    SCRIPTS = ("compare.js",)
    TEMPLATE = TEMPLATE
    STYLE = STYLE
