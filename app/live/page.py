"""The room Live: the run that is trained, and its result; from there back to the settings."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from app.desk.changes import taken_up
from app.desk.element import build
from app.kit.action_errors import reported
from app.kit.component import PRIVATE, Leads
from app.live import panel
from app.live.feed import Feed
from trainer.contract.home import Home
from trainer.runs.folder import RunFolder


def page(home: Home, feed: Feed, demo: gr.Blocks) -> None:
    """The page's components, and what its result's buttons do."""
    live = panel.Panel(home, feed)
    panel.wire(live, demo)
    build(home)
    leads = Leads("", elem_id="leads-again")

    def again(run: str) -> str:
        """The address of the project with the shown run's settings."""
        return settings_of(home, run, None)

    def continue_from(run: str, file: str) -> str:
        """The address of the project with the settings that continue training from the chosen LoRA file."""
        return settings_of(home, run, file)

    acts: dict[gr.Button, tuple[Callable[..., Any], Any]] = {
        live.result.again: (again, live.shown),
        live.result.continue_training: (continue_from, [live.shown, live.result.file]),
    }
    for button, (act, inputs) in acts.items():
        button.click(reported(act), inputs, leads, **PRIVATE)


def settings_of(home: Home, run: str, file: str | None) -> str:
    """Returns where a run's project can be changed and trained, with its settings; with a file, continued from that.

    Raises:
        TrainerError: The settings or the file cannot be used.
    """
    project = taken_up(home, RunFolder.named(home, run), file)
    return f"/settings?{urlencode({'project': project.name})}"
