"""Step 1 of the Train page: which images. A folder, typed or pasted, or files dropped here."""

import shutil
import time
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from app.kit.action_errors import carded
from app.kit.cards import alert_card, problem_card
from app.kit.component import PRIVATE
from app.kit.form import Form
from app.kit.text import label, language, say
from app.kit.wording import html_of
from app.server.files import thumbnail_url
from trainer.contract.errors import TrainerError
from trainer.contract.home import Home, user_path
from trainer.contract.pasted import pasted
from trainer.dataset import caption_files, formats
from trainer.dataset.overlay import existing_overlay
from trainer.dataset.scan import look

THUMBNAILS = 12
DROPPED = (*formats.SUFFIXES, *caption_files.SUFFIXES)


def build(home: Home, form: Form) -> tuple[gr.Button, gr.HTML]:
    """Build the step; returns the button of the built-in example, and the place of the link to the Dataset page."""
    with gr.Row(elem_classes="head"):
        gr.Markdown(label("train.pictures"), elem_classes="heading")
        example = gr.Button(label("train.example"), size="sm", elem_id="example", min_width=120)
    with gr.Row(elem_classes="fields"):
        form.add("dataset.images", placeholder="/home/me/Pictures/ana")
    drop = gr.File(
        label=label("train.drop"),
        show_label=False,
        file_count="multiple",
        file_types=["image", *DROPPED],
        height=112,
        elem_id="drop",
    )
    found = gr.HTML(elem_id="pictures", apply_default_css=False)
    look_closer = gr.HTML(elem_id="pictures-link", apply_default_css=False)
    images = form.controls["dataset.images"]

    def describe(typed: str, request: gr.Request) -> str:
        """Show thumbnails of the folder, how many images and captions, and what is wrong."""
        return images_html(home, user_path(typed), language(request)) if (typed or "").strip() else ""

    def take(files: list[str] | None, request: gr.Request) -> Any:  # noqa: ANN401 - updates of many kinds
        """Keep dropped files in a folder of the home, which becomes the image folder."""
        try:
            folder = keep_dropped(home, [Path(file) for file in files or []])
        except OSError as error:
            problem = say(language(request), "train.drop_failed", cause=escape(str(error)))
            return None, gr.skip(), alert_card(problem)
        return None, str(folder), gr.skip()

    images.change(carded(found, describe), images, found, **PRIVATE)  # type: ignore[attr-defined]
    drop.upload(take, drop, [drop, images, found], **PRIVATE)
    return example, look_closer


def dataset_link(preset: str, named: dict[str, Any], tongue: str) -> str:
    """Returns a link to the Dataset page, which then checks what these settings train; empty without a folder."""
    folder = Path(pasted(named["dataset_images"] or "")).expanduser()
    if not folder.name or not folder.is_dir():
        return ""
    chosen = {"preset": preset, "trigger": named["dataset_trigger_word"], "resolution": named["dataset_resolution"]}
    address = urlencode({"images": str(folder), **{key: value for key, value in chosen.items() if value}})
    return f'<p class="counted"><a href="/dataset?{escape(address)}">{say(tongue, "train.see_captions")}</a></p>'


def images_html(home: Home, folder: Path, tongue: str) -> str:
    """Returns what is in the folder as HTML, as far as it can be seen without training."""
    try:
        items, problems = look(folder, existing_overlay(home, folder))
    except TrainerError as error:
        return problem_card(error, tongue)
    thumbs = "".join(
        f'<img src="{thumbnail_url(item.path)}" alt="{escape(item.caption or item.path.name, quote=True)}">'
        for item in items[:THUMBNAILS]
    )
    more = f'<span class="more">+{len(items) - THUMBNAILS}</span>' if len(items) > THUMBNAILS else ""
    notes = "".join(
        f'<li>{html_of(p.message, tongue)} <span class="quiet">{html_of(p.hint, tongue)}</span></li>' for p in problems
    )
    counted = say(tongue, "train.counted", images=len(items), captions=sum(bool(item.caption) for item in items))
    return f'<p class="counted"><strong>{counted}</strong></p><div class="thumbs">{thumbs}{more}</div>' + (
        f'<ul class="problems">{notes}</ul>' if notes else ""
    )


def keep_dropped(home: Home, files: list[Path]) -> Path:
    """Returns a new folder `datasets/dropped-TIME` with copies of the images and captions among these files.

    Raises:
        OSError: No room, or not readable; the new folder is then gone again.
    """
    stem = home.root / "datasets" / f"dropped-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, number = stem, 1
    while folder.exists():
        number += 1
        folder = stem.with_name(f"{stem.name}-{number}")
    folder.mkdir(parents=True)
    try:
        for file in files:
            if file.suffix.lower() in DROPPED:
                shutil.copyfile(file, folder / file.name)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder
