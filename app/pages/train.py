"""The Train page: pictures, what it is, train; and below, the run that is shown live."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component

from app.files import thumbnail_url
from app.form import SETTINGS, config_of, control, shown_values
from app.monitor import duration, size
from app.text import label, language, say
from trainer.contract.buckets import plan
from trainer.contract.captions import scan
from trainer.contract.errors import TrainerError
from trainer.contract.estimate import estimate
from trainer.contract.home import Home
from trainer.contract.presets import FOLDER, list_presets, load_preset, overlay, settled
from trainer.contract.queue import Queue
from trainer.contract.runs import RunFolder
from trainer.contract.settings import SECTIONS, TrainConfig

ON_THE_PAGE = (
    "dataset.images",
    "dataset.trigger_word",
    "output.name",
    "model.base_model",
    "adapter.rank",
    "adapter.alpha",
    "optimizer.learning_rate",
    "dataset.views",
)
OF_THE_USER = ("dataset.images", "dataset.trigger_word", "output.name", "model.base_model")  # a preset keeps these
EXAMPLE = "pocket-style"
THUMBNAILS = 8
SEARCH = """(wanted) => {
    for (const row of document.querySelectorAll('.advanced-setting'))
        row.hidden = !row.textContent.toLowerCase().includes(wanted.trim().toLowerCase());
}"""


@dataclass(frozen=True)
class TrainForm:
    """The page's inputs."""

    preset: gr.Dropdown
    controls: dict[str, Component]
    keep_strength: gr.Checkbox

    def named(self) -> dict[str, Block]:
        """The inputs by the names that the API gives them."""
        return {"preset": self.preset, **{api_name(place): one for place, one in self.controls.items()}}


def api_name(place: str) -> str:
    """A setting's parameter name in the API: "adapter_rank"."""
    return place.replace(".", "_")


def read(preset: str, named: dict[str, Any], home: Home) -> TrainConfig:
    """The settings that the page's inputs hold, ready to be a run's.

    Raises:
        TrainerError: Naming what is wrong.
    """
    goal = overlay({"preset": load_preset(preset, FOLDER, home.presets).values})[0].goal
    return settled(config_of({place: named[api_name(place)] for place in SETTINGS}, preset, goal))


def build(home: Home) -> tuple[TrainForm, gr.Button, gr.HTML]:
    """The inputs, the Train button, and the place for what hinders it."""
    controls: dict[str, Component] = {}
    with gr.Column(elem_classes="step"):
        gr.Markdown(label("train.pictures"), elem_classes="heading")
        with gr.Row():
            controls["dataset.images"] = control("dataset.images", scale=4)
            example = gr.Button(label("train.example"), scale=1)
        pictures = gr.HTML(elem_id="pictures")
    with gr.Column(elem_classes="step"):
        gr.Markdown(label("train.what"), elem_classes="heading")
        presets, _ = list_presets(FOLDER, home.presets)
        choices = [(f"{preset.name}: {preset.intent}", preset.name) for preset in presets]
        preset = gr.Dropdown(choices, value=EXAMPLE, label=label("train.preset"), elem_id="preset")
        with gr.Row():
            for place in ("output.name", "dataset.trigger_word", "model.base_model"):
                controls[place] = control(place)
    with gr.Column(elem_classes="step"):
        gr.Markdown(label("train.train"), elem_classes="heading")
        with gr.Row():
            for place in ("adapter.rank", "adapter.alpha", "optimizer.learning_rate", "dataset.views"):
                controls[place] = control(place)
        keep = gr.Checkbox(True, label=label("train.keep_strength"))
        _advanced(controls)
        problem = gr.HTML(elem_id="problem")
        start = gr.Button(label("train.start"), variant="primary", elem_id="start")
    form = TrainForm(preset, controls, keep)
    _wire(form, home, example, pictures, problem)
    return form, start, problem


def _advanced(controls: dict[str, Component]) -> None:
    """Every setting that the page does not show at once, by section, with a search field."""
    with gr.Accordion(label("train.advanced"), open=False):
        search = gr.Textbox(label=label("train.search"), elem_id="search")
        for section in SECTIONS:
            with gr.Group(elem_classes="section"):
                gr.Markdown(f"### {section.capitalize()}")
                for place, info in SETTINGS.items():
                    if info.section == section and place not in ON_THE_PAGE:
                        controls[place] = control(place, elem_classes="advanced-setting")
        search.input(None, search, None, js=SEARCH, api_visibility="private")


def _wire(form: TrainForm, home: Home, example: gr.Button, pictures: gr.HTML, problem: gr.HTML) -> None:
    """What happens when inputs change."""
    order = list(form.controls)

    def _values(config: TrainConfig, kept: dict[str, Any]) -> list[Any]:
        values = {**shown_values(config), **kept}
        return [values[place] for place in order]

    def choose(preset: str, *users: Any) -> list[Any]:  # noqa: ANN401
        """The preset's values; what is the user's own stays."""
        config, _ = overlay({"preset": load_preset(preset, FOLDER, home.presets).values})
        return _values(config, {p: v for p, v in zip(OF_THE_USER, users, strict=True) if v})

    def take_example() -> list[Any]:
        """The built-in pictures, model and preset."""
        config, _ = overlay({"preset": load_preset(EXAMPLE, FOLDER).values})
        return [EXAMPLE, *_values(config, {"output.name": "example"})]

    everything = [form.controls[place] for place in order]
    users = [form.controls[place] for place in OF_THE_USER]
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    form.preset.input(choose, [form.preset, *users], everything, **private)
    example.click(take_example, None, [form.preset, *everything], **private)
    images = form.controls["dataset.images"]
    images.change(_look_at(home), images, pictures, **private)  # type: ignore[attr-defined]
    gr.on(
        [one.change for one in (form.preset, *everything)],  # type: ignore[attr-defined]
        _plan(home),
        inputs_kwargs=form.named(),
        outputs=problem,
        trigger_mode="always_last",
        **private,
    )
    _keep_strength(form)


def _keep_strength(form: TrainForm) -> None:
    """Changing rank or alpha keeps learning rate x alpha / rank, if so wished."""
    rank, alpha, rate = (form.controls[p] for p in ("adapter.rank", "adapter.alpha", "optimizer.learning_rate"))
    strength = gr.State(None)

    def note(rank: float, alpha: float, rate: float) -> float | None:
        """The learning strength these values make."""
        return rate * alpha / rank if rank and alpha and rate else None

    def adapt(rank: float, alpha: float, rate: float, strength: float | None, keep: bool) -> Any:  # noqa: ANN401
        """The learning rate that makes the noted strength with the new rank and alpha."""
        if not keep or not strength or not rank or not alpha:
            return rate
        return float(f"{strength * rank / alpha:.3g}")

    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
    values = [rank, alpha, rate]
    for one in (rank, alpha):
        one.input(adapt, [*values, strength, form.keep_strength], rate, **private)  # type: ignore[attr-defined]
    for one in (rate, form.keep_strength):
        one.input(note, values, strength, **private)  # type: ignore[attr-defined]
    form.preset.change(note, values, strength, **private)


def _look_at(home: Home) -> Callable[..., str]:
    def look(images: str, request: gr.Request) -> str:
        """Thumbnails of the folder, how many pictures and captions, and what is wrong, in plain words."""
        tongue = language(request)
        if not (images or "").strip():
            return f'<p class="quiet">{say(tongue, "train.no_folder")}</p>'
        try:
            items, problems = scan(Path(images.strip()).expanduser())
        except TrainerError as error:
            return problem_card(error)
        captions = sum(bool(item.caption) for item in items)
        thumbs = "".join(
            f'<img src="{thumbnail_url(home, item.path)}" alt="{escape(item.caption or item.path.name, quote=True)}">'
            for item in items[:THUMBNAILS]
        )
        notes = "".join(f"<p>{escape(p.message)} {escape(p.hint)}</p>" for p in problems)
        counted = say(tongue, "train.counted", pictures=len(items), captions=captions)
        return f'<div class="thumbs">{thumbs}</div><p>{counted}</p>{notes}'

    return look


def _plan(home: Home) -> Callable[..., str]:
    def sentence(request: gr.Request, preset: str, **named: Any) -> str:  # noqa: ANN401
        """What pressing Train will do, or what is wrong with the settings."""
        tongue = language(request)
        if not named["dataset_images"]:
            return f'<p class="quiet">{say(tongue, "train.no_folder")}</p>'
        try:
            config = read(preset, named, home)
            items, _ = scan(Path(config.dataset.images))
        except TrainerError as error:
            return problem_card(error)
        return f'<p class="plan">{plan_sentence(config, len(items), home, tongue)}</p>'

    return sentence


def plan_sentence(config: TrainConfig, pictures: int, home: Home, tongue: str) -> str:
    """Pictures × views = steps, how long, how much memory, which files: as far as earlier runs tell."""
    made, known = plan(pictures, config.dataset), estimate(home, config)
    parts = [
        say(
            tongue,
            "plan.steps",
            pictures=made.pictures,
            views=f"{made.views_per_picture:.4g}",
            steps=made.steps,
            batch=config.dataset.batch_size * config.dataset.accumulation,
        )
    ]
    if known.seconds_per_step is not None:
        parts.append(say(tongue, "plan.time", duration=duration(known.seconds_per_step * made.steps)))
    if known.memory_gib is not None:
        parts.append(say(tongue, "plan.memory", gib=f"{known.memory_gib:.1f}"))
    if known.bytes_per_file is not None:
        parts.append(say(tongue, "plan.files_of", files=config.output.files, size=size(known.bytes_per_file)))
    else:
        parts.append(say(tongue, "plan.files", files=config.output.files))
    strength = config.optimizer.learning_rate * config.adapter.alpha / config.adapter.rank
    parts.append(say(tongue, "plan.strength", strength=f"{strength:.2g}"))
    return " · ".join(parts)


def problem_card(error: TrainerError) -> str:
    """An error as a card: what happened, the value seen, what to do."""
    return f'<div class="notice failure" role="alert">{escape(error.message)}<p>{escape(error.hint)}</p></div>'


def start_run(home: Home, config: TrainConfig) -> RunFolder:
    """A run of these settings, started or put last in the queue.

    Raises:
        TrainerError: The pictures cannot be used.
    """
    scan(Path(config.dataset.images))
    run = RunFolder.create(home, config)
    Queue(home).start(run)
    return run
