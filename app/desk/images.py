"""Which images: what is in a folder, as HTML."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from app.kit.cards import problem_card
from app.kit.text import say
from app.kit.wording import html_of
from app.server.files import thumbnail_url
from trainer.contract.errors import TrainerError
from trainer.contract.home import Home
from trainer.contract.pasted import pasted
from trainer.dataset.overlay import existing_overlay
from trainer.dataset.problems import uncalled
from trainer.dataset.scan import look

THUMBNAILS = 13  # and how many more: two rows of seven


def dataset_link(values: Mapping[str, Any], preset: str) -> str:
    """Returns the address of the Dataset page, which then checks what is trained; empty without a folder."""
    folder = Path(pasted(str(values["dataset.images"] or ""))).expanduser()
    if not folder.name or not folder.is_dir():
        return ""
    resolution, trigger = values["dataset.resolution"], values["dataset.trigger_word"]
    chosen = {"preset": preset, "trigger": trigger, "resolution": resolution}
    return f"/dataset?{urlencode({'images': str(folder), **{key: value for key, value in chosen.items() if value}})}"


def images_html(home: Home, folder: Path, trigger_word: str, tongue: str) -> str:
    """Returns what is in the folder as HTML, and what of it matters with this trigger word or none."""
    try:
        items, problems = look(folder, existing_overlay(home, folder))
    except TrainerError as error:
        return problem_card(error, tongue)
    thumbs = "".join(
        f'<img src="{thumbnail_url(item.path)}" alt="{escape(item.caption or item.name, quote=True)}">'
        for item in items[:THUMBNAILS]
    )
    more = f'<span class="more">+{len(items) - THUMBNAILS}</span>' if len(items) > THUMBNAILS else ""
    notes = "".join(
        f'<li>{html_of(p.message, tongue)} <span class="quiet">{html_of(p.hint, tongue)}</span></li>'
        for p in (uncalled(problem, trigger_word) for problem in problems)
    )
    counted = say(tongue, "train.counted", images=len(items), captions=sum(bool(item.caption) for item in items))
    return f'<p class="counted"><strong>{counted}</strong></p><div class="thumbs">{thumbs}{more}</div>' + (
        f'<ul class="problems">{notes}</ul>' if notes else ""
    )
