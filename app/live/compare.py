"""Two previews of one prompt on top of each other, with a line to drag between them."""

from typing import TypedDict

from app.kit.component import Element, asset
from app.kit.text import words
from app.live.monitor import Watch
from app.server.files import run_url


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
    """Drag to compare; the feed brings it what `compare_data` returns."""

    SCRIPTS = ("compare.js",)
    TEMPLATE = asset("live/compare.html")
    STYLE = asset("live/compare.css")
