"""The Train page's form: pictures, what it is, train."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from itertools import count
from pathlib import PurePath
from typing import Any

import gradio as gr

from app.kit.cards import problem_card
from app.kit.component import PRIVATE
from app.kit.form import SETTINGS, Form, advanced, api_name, shown_values
from app.kit.text import label, language, say
from app.train import pictures
from app.train.base_model import DECIDING, BaseModelField, earlier, model_of, remedy_of
from app.train.plan import differing, info_of, model_problems, preset_config, read, sentence, smaller, strength
from app.train.preset_box import PresetBox
from trainer.contract.errors import InvalidSettings, ModelError, TrainerError
from trainer.contract.home import Home
from trainer.contract.presets import FOLDER, OF_ONE_RUN, list_presets
from trainer.contract.settings.config import TrainConfig
from trainer.dataset.buckets import plan
from trainer.dataset.captions import first_caption, pictures_of
from trainer.planning.disk import check_space
from trainer.planning.estimate import disk_bytes
from trainer.runs.folder import RunFolder
from trainer.runs.queue import Queue

NAMED = ("output.name", "dataset.trigger_word", "model.base_model")
SHAPE = ("adapter.rank", "adapter.alpha", "optimizer.learning_rate", "dataset.views")
ON_THE_PAGE = ("dataset.images", *NAMED, *SHAPE)
OF_THE_USER = (*OF_ONE_RUN, "dataset.trigger_word", "dataset.captions")  # a preset leaves these as they are
GOALS = ("style", "character", "concept")
EXAMPLE = "pocket-style"


class TrainForm:
    """The form's components, and what happens when they change."""

    def __init__(self, home: Home) -> None:
        self.home = home
        with gr.Column(elem_id="form", scale=2, min_width=360):
            self.preset = gr.Dropdown(
                preset_choices(home), value=EXAMPLE, label=label("train.preset"), elem_id="preset", render=False
            )
            usual = shown_values(preset_config(home, EXAMPLE))
            self.form = Form(self.preset, {**usual, "dataset.images": ""})
            with gr.Column(elem_classes="step"):
                example, self.look_closer = pictures.build(home, self.form)
            with gr.Column(elem_classes="step"):
                gr.Markdown(label("train.what"), elem_classes="heading")
                choices = [(label(f"goal.{goal}"), goal) for goal in GOALS]
                with gr.Column(elem_classes="field"):
                    self.goal = gr.Radio(choices, value="style", label=label("train.goal"), elem_id="goal")
                with gr.Column(elem_classes="field"):
                    self.preset.render()  # type: ignore[no-untyped-call]
                self.intent = gr.HTML(elem_id="intent", apply_default_css=False)
                with gr.Row(elem_classes="fields"):
                    self.form.add("output.name", placeholder="ana")
                    self.form.add("dataset.trigger_word")
                self.model = BaseModelField(home, self.form)
            with gr.Column(elem_classes="step"):
                gr.Markdown(label("train.train"), elem_classes="heading")
                with gr.Row(elem_classes="fields"):
                    for place in SHAPE:
                        self.form.add(place, info=SETTINGS[place].help)
                self.strength = gr.State(strength(preset_config(home, EXAMPLE)))
                self.keep = gr.Checkbox(True, label=label("train.keep_strength"), elem_id="keep-strength")
                self.plan = gr.HTML(elem_id="plan", apply_default_css=False)
                self.smaller = gr.Button(visible=False, size="sm", elem_id="plan-smaller", elem_classes="remedy")
                self.start = gr.Button(label("train.start"), variant="primary", elem_id="start", size="lg")
                self.problem = gr.HTML(elem_id="problem", apply_default_css=False)
                advanced(self.form, ON_THE_PAGE)
                PresetBox(home, self)
        self._wire(example)

    @property
    def everything(self) -> list[Any]:
        """All controls, what describes the preset, and the learning strength to keep."""
        return [self.preset, self.goal, self.intent, self.strength, *self.form.controls.values()]

    def show(self, config: TrainConfig, tongue: str, **kept: Any) -> dict[Any, Any]:  # noqa: ANN401
        """Fill the form with these settings; `kept` by API name stays.

        Settings of no preset, or of one that is gone, are shown beside the usual one for their goal.
        """
        choices = preset_choices(self.home)
        preset = config.preset if (config.preset, config.preset) in choices else self.usual(config.goal)
        return {
            self.preset: gr.update(value=preset, choices=choices),
            self.goal: config.goal,
            self.strength: strength(config),
            self.intent: intent_html(self.home, preset, tongue),
            **self.form.filled(config, **kept),
        }

    def choices(self, chosen: str) -> Any:  # noqa: ANN401 - an update
        """The presets there are now, this one chosen."""
        return gr.update(choices=preset_choices(self.home), value=chosen)

    def usual(self, goal: str) -> str:
        """The built-in preset that stands for a goal."""
        return preset_for(self.home, goal, EXAMPLE)

    def _wire(self, example: gr.Button) -> None:
        home, controls = self.home, self.form.controls
        users = {api_name(place): controls[place] for place in OF_THE_USER if place in controls}

        def choose(request: gr.Request, preset: str, **users: Any) -> Any:  # noqa: ANN401
            """The preset's values; what is the user's own stays."""
            return self.show(preset_config(home, preset), language(request), **_given(users))

        def choose_goal(request: gr.Request, goal: str, preset: str, base_model: str, **users: Any) -> Any:  # noqa: ANN401
            """The preset for this goal, of the same base model if there is one; a model that suits it stays."""
            chosen = preset_for(home, goal, preset)
            kept = {"model_base_model": base_model} if alike(home, chosen, preset) else {}
            return choose(request, chosen, **users, **kept)

        def suit(request: gr.Request, base_model: str, **named: Any) -> Any:  # noqa: ANN401
            """Set what the base model asks for; the model stays, and what is the user's own."""
            deciding = {name: named.pop(name) for name in DECIDING}
            remedy = remedy_of(home, model_of(base_model), **deciding)
            if isinstance(remedy, str):
                return choose(request, remedy, **named, model_base_model=base_model)
            return {controls["dataset.resolution"]: remedy} if remedy else gr.skip()

        def take_example(request: gr.Request) -> Any:  # noqa: ANN401
            """The built-in pictures, model and preset."""
            return self.show(preset_config(home, EXAMPLE), language(request), output_name="example")

        chosen: dict[str, Any] = {"preset": self.preset, **users}
        self.preset.input(choose, inputs_kwargs=chosen, outputs=self.everything, **PRIVATE)
        shown = self.model.wire(self.goal)
        asked = {"goal": self.goal, "base_model": shown["base_model"], **chosen}
        self.goal.input(choose_goal, inputs_kwargs=asked, outputs=self.everything, **PRIVATE)
        self.model.remedy.click(suit, inputs_kwargs={**shown, **users}, outputs=self.everything, **PRIVATE)
        example.click(take_example, None, self.everything, **PRIVATE)
        self.resets_to_preset = {
            place: button.click(_preset_value(home, place), self.preset, controls[place], **PRIVATE)
            for place, button in self.form.resets.items()
        }
        self._keep_strength()
        self._follow()

    def _follow(self) -> None:
        """Keep plan, marks and problems true to the inputs."""
        marked = gr.State({})
        resets, controls = self.form.resets, self.form.controls

        def check(request: gr.Request, seen: dict[str, Any], preset: str, **named: Any) -> Any:  # noqa: ANN401
            """What Train will do or what hinders it; which settings differ from the preset, and which are wrong."""
            tongue = language(request)
            told, wrong = self._told(preset, named, tongue)
            fits_at = smaller(self.home, preset, named)
            differs = differing({p: named[api_name(p)] for p in SETTINGS}, preset_config(self.home, preset))
            marks = {p: str(value) for p, value in differs.items() if p not in OF_THE_USER}
            had, had_wrong = seen.get("marks", {}), seen.get("wrong", {})
            updates: dict[Any, Any] = {
                self.plan: told,
                self.look_closer: pictures.dataset_link(preset, named, tongue),
                self.smaller: gr.update(visible=bool(fits_at), value=say(tongue, "plan.smaller", px=fits_at)),
                marked: {"marks": marks, "wrong": wrong, "fits_at": fits_at},
            }
            for place in resets:
                if marks.get(place) != had.get(place):
                    text = say(tongue, "train.reset", value=marks.get(place) or "–")
                    updates[resets[place]] = gr.update(visible=place in marks, value=text)
                if wrong.get(place) != had_wrong.get(place):
                    updates[controls[place]] = gr.update(info=info_of(place, wrong))
            return updates

        gr.on(
            [one.change for one in (self.preset, *controls.values())],  # type: ignore[attr-defined]
            check,
            inputs_kwargs={"seen": marked, **self.form.named()},
            outputs=[self.plan, self.look_closer, self.smaller, marked, *resets.values(), *controls.values()],
            trigger_mode="always_last",
            **PRIVATE,
        )

        def shrink(seen: dict[str, Any]) -> Any:  # noqa: ANN401 - a number or nothing
            """Consent to the smaller resolution that fits."""
            return seen.get("fits_at") or gr.skip()

        self.smaller.click(shrink, marked, controls["dataset.resolution"], **PRIVATE)

    def _told(self, preset: str, named: dict[str, Any], tongue: str) -> tuple[str, dict[str, str]]:
        if not (named["dataset_images"] or "").strip():
            return f'<p class="quiet">{say(tongue, "train.no_folder")}</p>', model_problems(self.home, preset, named)
        try:
            config = read(self.home, preset, named)
            told = sentence(self.home, config, tongue)
        except InvalidSettings as error:
            mend = InvalidSettings(error.message, hint=say(tongue, "train.mend") if error.places else error.hint)
            return problem_card(mend), error.places
        except ModelError as error:
            return problem_card(error), model_problems(self.home, preset, named)
        except TrainerError as error:
            return problem_card(error), {"dataset.images": error.message} if error.code != "error" else {}
        power = say(tongue, "plan.strength", strength=f"{strength(config):.2g}")
        start = escape(PurePath(config.adapter.start_from).name)
        goes_on = f"<p>{say(tongue, 'plan.start_from', file=start)}</p>" if start else ""
        return f'<p class="plan">{told}</p>{goes_on}<p class="quiet">{power}</p>', {}

    def _keep_strength(self) -> None:
        """Changing rank or alpha keeps learning rate x alpha / rank, if so wished."""
        rank, alpha, rate = (self.form.controls[p] for p in SHAPE[:3])

        def note(rank: float, alpha: float, rate: float) -> float | None:
            """The learning strength these values make."""
            return rate * alpha / rank if rank and alpha and rate else None

        def adapt(rank: float, alpha: float, rate: float, kept: float | None, wished: bool) -> Any:  # noqa: ANN401
            """The learning rate that makes the noted strength with the new rank and alpha."""
            if not wished or not kept or not rank or not alpha:
                return rate
            return float(f"{kept * rank / alpha:.3g}")

        values = [rank, alpha, rate]
        for one in (rank, alpha):
            one.input(adapt, [*values, self.strength, self.keep], rate, **PRIVATE, queue=False)  # type: ignore[attr-defined]
        noted: dict[str, Any] = {"fn": note, "inputs": values, "outputs": self.strength, **PRIVATE, "queue": False}
        for event in (rate.input, self.keep.input):  # type: ignore[attr-defined]
            event(**noted)
        for place in SHAPE[:3]:
            self.resets_to_preset[place].then(**noted)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}


def _preset_value(home: Home, place: str) -> Callable[[str], Any]:
    def value(preset: str) -> Any:  # noqa: ANN401 - any setting's value
        """The preset's value of this setting."""
        return shown_values(preset_config(home, preset))[place]

    return value


def preset_choices(home: Home) -> list[tuple[str, str]]:
    """The presets by name, the user's own first."""
    usable, _ = list_presets(home.presets, FOLDER)
    return [(preset.name, preset.name) for preset in usable]


def preset_for(home: Home, goal: str, present: str) -> str:
    """The built-in preset of this goal nearest to the present one: of the same base model, else of the same family.

    For settings of any family it is Stable Diffusion 1.x's, the smallest.
    """
    usable, _ = list_presets(FOLDER)
    fitting = [one.name for one in usable if one.values.get("goal", "style") == goal]
    model = preset_config(home, present).model

    def nearness(name: str) -> tuple[bool, bool]:
        """How near a preset is, first what matters most."""
        own = preset_config(home, name).model
        family = "sd15" if model.family == "auto" else model.family
        return own.base_model == model.base_model, own.family == family

    return max(fitting, key=nearness)


def alike(home: Home, *presets: str) -> bool:
    """Whether presets are for the same models."""
    configs = [preset_config(home, preset) for preset in presets]
    return len({(config.model.family, config.dataset.resolution) for config in configs}) == 1


def intent_html(home: Home, preset: str, tongue: str) -> str:
    """The preset's one sentence, and its goal."""
    usable, _ = list_presets(home.presets, FOLDER)
    found = next((one for one in usable if one.name == preset), None)
    own = f" <em>{say(tongue, 'preset.own')}</em>" if found is not None and found.own else ""
    return f'<p class="quiet">{escape(found.intent)}{own}</p>' if found is not None else ""


def going_on(home: Home, run: RunFolder, file: str) -> TrainConfig:
    """The run's settings for another run that goes on from one of its LoRA files, under the next free name.

    Raises:
        RunMissing: The file's name leads out of the run's folder.
        InvalidSettings: The run's settings were written by another version.
    """
    config = run.config()
    adapter = config.adapter.model_copy(update={"start_from": str(run.inside(file))})
    output = config.output.model_copy(update={"name": next_name(home, config.output.name)})
    return config.model_copy(update={"adapter": adapter, "output": output})


def next_name(home: Home, name: str) -> str:
    """The name, counted up: "ana", "ana 2", "ana 3"; the first that none of the newest runs has."""
    stem, _, number = name.rpartition(" ")
    if not (stem and number.isdecimal()):
        stem, number = name, "1"
    taken = {config.output.name for config in earlier(home)}
    return next(made for n in count(int(number) + 1) if (made := f"{stem} {n}") not in taken)


def start_run(home: Home, config: TrainConfig) -> RunFolder:
    """A run of these settings, started or put last in the queue.

    Raises:
        TrainerError: The pictures cannot be used, or the disk has too little room.
    """
    items, _ = pictures_of(config.dataset)
    captions = [first_caption(item, config.dataset, config.model.seed) for item in items]
    needed = disk_bytes(config, plan(len(items), config.dataset).steps, captions)
    if needed is not None:
        check_space(home.runs, needed)
    run = RunFolder.create(home, config)
    Queue(home).start(run)
    return run
