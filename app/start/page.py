"""The room Start: projects, which images, for which model, to learn what."""

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from app.desk.changes import made
from app.desk.element import RELOAD, DeskElement, build, place
from app.kit.action_errors import carded, reported
from app.kit.cards import alert_card
from app.kit.component import PRIVATE
from app.kit.form import control
from app.kit.text import label, language, say
from trainer.contract.home import Home
from trainer.projects.project import Project
from trainer.projects.sets import KEPT, keep_dropped

# The project may get its name while the files are on their way
WITH_PROJECT = "async (files, project) => [files, await window.atelier.flush()]"


def page(home: Home) -> DeskElement:
    """The page's components, and what happens when files are dropped."""
    with gr.Column(elem_id="start-room"):
        place("recents")
        with gr.Row(elem_classes="questions"):
            with gr.Column(elem_classes="card", scale=11):
                gr.Markdown(label("start.images"), elem_classes="heading")
                with gr.Column(elem_id="drop-area"):
                    drop = gr.File(
                        label=label("train.drop"),
                        show_label=False,
                        file_count="multiple",
                        file_types=["image", *KEPT],
                        height=84,
                        elem_id="drop",
                    )
                    place("drop", elem_id="drop-words")
                failed = gr.HTML(elem_id="drop-problem", apply_default_css=False)
                place("images")
                with gr.Column(elem_classes="setting-row"), gr.Row(elem_id="folder-line"):
                    control(
                        "dataset.images", info=None, placeholder="/home/me/Pictures/ana", min_width=120, max_lines=1
                    )
                    place("browse")
            with gr.Column(elem_classes="card", scale=11):
                gr.Markdown(label("start.model"), elem_classes="heading")
                place("models")
            with gr.Column(elem_classes="card", scale=8):
                gr.Markdown(label("start.goal"), elem_classes="heading")
                place("goals")
                for setting in ("output.name", "dataset.trigger_word"):
                    with gr.Column(elem_classes="setting-row"):
                        control(setting, info=None)
                place("preset")
    desk = build(home)

    def take(files: list[str] | None, project: str, request: gr.Request) -> Any:  # noqa: ANN401 - updates
        """Keep dropped files in a folder of the home, which becomes the image folder; more are added to it."""
        found = Project.named(home, project) if project else None
        images = str(found.read().values.get("dataset.images", "")) if found else ""
        try:
            folder = keep_dropped(home, [Path(file) for file in files or []], Path(images) if images else None)
        except OSError as error:
            problem = say(language(request), "train.drop_failed", cause=escape(str(error)))
            return None, gr.skip(), alert_card(problem)
        return None, made(home, found, {"dataset.images": str(folder)}, language(request)).name, ""

    act = reported(carded(failed, take))
    kept = drop.upload(act, [drop, desk], [drop, desk, failed], js=WITH_PROJECT, **PRIVATE)
    kept.then(None, None, None, js=RELOAD, api_visibility="private")
    return desk
