"""The Train page's form: images, what it is, train."""

from html import escape
from typing import Any

import gradio as gr

from app.kit.cards import alert_card, explanation, problem_card
from app.kit.component import PRIVATE
from app.kit.form import REST, Form, api_name, shown_values, whole
from app.kit.settings_list import SETTINGS, Marks, SettingsList
from app.kit.text import label, language, say
from app.kit.wording import on_page
from app.train import images
from app.train.base_model import BaseModelField, model_of, remedy_of
from app.train.plan import (
    cautions,
    differing,
    model_problems,
    read,
    sentence,
    smaller,
    started,
    strength,
    wrong_settings,
)
from app.train.preset_box import PresetBox
from app.train.presets import EXAMPLE, alike, intent_html, preset_choices, preset_config, preset_for
from trainer.contract.errors import InvalidSettings, TrainerError
from trainer.contract.home import Home
from trainer.contract.presets import OF_ONE_RUN
from trainer.contract.settings.config import TrainConfig
from trainer.models.errors import ModelError
from trainer.planning.strength import learning_strength

NAMED = ("output.name", "dataset.trigger_word", "model.base_model")
SHAPE = ("adapter.rank", "adapter.alpha", "optimizer.learning_rate", "dataset.views")
ON_THE_PAGE = ("dataset.images", *NAMED, *SHAPE)
OF_THE_USER = (*OF_ONE_RUN, "dataset.trigger_word", "dataset.captions")  # a preset leaves these as they are
GOALS = ("style", "character", "concept")


class TrainForm:
    """The form's components, and what happens when they change."""

    def __init__(self, home: Home) -> None:
        self.home = home
        with gr.Column(elem_id="form", scale=2, min_width=360):
            self.preset = gr.Dropdown(
                preset_choices(home), value=EXAMPLE, label=label("train.preset"), elem_id="preset", render=False
            )
            usual = shown_values(preset_config(home, EXAMPLE))
            rest = {place: value for place, value in usual.items() if place not in ON_THE_PAGE}
            listed = SettingsList(ON_THE_PAGE, rest, elem_id="settings", render=False)
            self.form = Form(self.preset, {**usual, "dataset.images": ""}, listed)
            with gr.Column(elem_classes="step"):
                example, self.look_closer = images.build(home, self.form)
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
                self.form.rest.render()  # type: ignore[no-untyped-call]
                self.marks = Marks({}, elem_id="marks")
                PresetBox(home, self.preset, self.form.named(), self.everything, self.show)
        self._wire(example)

    @property
    def everything(self) -> list[Any]:
        """All controls, what describes the preset, and the learning strength to keep."""
        return [self.preset, self.goal, self.intent, self.strength, *self.form.controls.values(), self.form.rest]

    def show(self, config: TrainConfig, tongue: str, **kept: Any) -> dict[Any, Any]:  # noqa: ANN401
        """Fill the form with these settings; `kept` by API name stays.

        Settings of no preset, or of one that is gone, are shown beside the usual one for their goal.
        """
        choices = preset_choices(self.home)
        known = (config.preset, config.preset) in choices
        preset = config.preset if known else preset_for(self.home, config.goal, EXAMPLE)
        return {
            self.preset: gr.update(value=preset, choices=choices),
            self.goal: config.goal,
            self.strength: strength(config),
            self.intent: intent_html(self.home, preset, tongue),
            **self.form.filled(config, **kept),
        }

    def _wire(self, example: gr.Button) -> None:
        home, controls = self.home, self.form.controls

        def choose(request: gr.Request, preset: str, **named: Any) -> Any:  # noqa: ANN401
            """Show the preset's values; what is the user's own stays."""
            return self.show(preset_config(home, preset), language(request), **users_own(named))

        def choose_goal(request: gr.Request, goal: str, preset: str, **named: Any) -> Any:  # noqa: ANN401
            """Show the preset for this goal, of the same base model if there is one; a model that suits it stays."""
            chosen, base = preset_for(home, goal, preset), named["model_base_model"]
            kept = {"model_base_model": base} if alike(home, chosen, preset) else {}
            return self.show(preset_config(home, chosen), language(request), **users_own(named), **kept)

        def suit(request: gr.Request, goal: str, preset: str, **named: Any) -> Any:  # noqa: ANN401
            """Set what the base model needs; the model and what is the user's own stay."""
            base = named["model_base_model"]
            remedy = remedy_of(home, model_of(base), preset=preset, goal=goal, **model_of_rest(named))
            if isinstance(remedy, str):
                config = preset_config(home, remedy)
                return self.show(config, language(request), **users_own(named), model_base_model=base)
            return {self.form.rest: {**named[REST], "dataset.resolution": remedy}} if remedy else gr.skip()

        def take_example(request: gr.Request) -> Any:  # noqa: ANN401
            """The built-in images, model and preset."""
            return self.show(preset_config(home, EXAMPLE), language(request), output_name="example")

        def shrink(preset: str, **named: Any) -> Any:  # noqa: ANN401
            """Use the smaller resolution that fits."""
            fits_at = smaller(home, preset, whole(named))
            return {**named[REST], "dataset.resolution": fits_at} if fits_at else gr.skip()

        inputs, everything = self.form.named(), self.everything
        with_goal = {"goal": self.goal, **inputs}
        self.preset.input(choose, inputs_kwargs=inputs, outputs=everything, **PRIVATE)
        self.goal.input(choose_goal, inputs_kwargs=with_goal, outputs=everything, **PRIVATE)
        self.model.remedy.click(suit, inputs_kwargs=with_goal, outputs=everything, **PRIVATE)
        self.smaller.click(shrink, inputs_kwargs=inputs, outputs=self.form.rest, **PRIVATE)
        example.click(take_example, None, everything, **PRIVATE)
        self.model.wire()
        self._keep_strength()
        self._follow([*controls.values(), self.form.rest])

    def _follow(self, inputs: list[Any]) -> None:
        """Update plan, marks and problems with every change of an input."""

        def check(request: gr.Request, asked: dict[str, str], goal: str, preset: str, **named: Any) -> Any:  # noqa: ANN401
            """Show what Train will do or why it cannot; which settings differ from the preset, and which are wrong."""
            tongue, values = language(request), whole(named)
            planned, wrong = self._planned(preset, values, tongue)
            fits_at = smaller(self.home, preset, values)
            differs = differing({p: values[api_name(p)] for p in SETTINGS}, preset_config(self.home, preset))
            usual = {place: value for place, value in differs.items() if place not in OF_THE_USER}
            deciding = {"preset": preset, "goal": goal, **model_of_rest(named)}
            return {
                self.plan: planned,
                self.look_closer: images.dataset_link(preset, values, tongue),
                self.smaller: gr.update(visible=bool(fits_at), value=say(tongue, "plan.smaller", px=fits_at)),
                self.marks: {"usual": usual, "wrong": wrong},
                **self.model.described(values["model_base_model"], asked, tongue, **deciding),
            }

        gr.on(
            [one.change for one in (self.preset, self.goal, self.model.asked, *inputs)],
            check,
            inputs_kwargs={"asked": self.model.asked, "goal": self.goal, **self.form.named()},
            outputs=[self.plan, self.look_closer, self.smaller, self.marks, self.model.line, self.model.remedy],
            trigger_mode="always_last",
            **PRIVATE,
        )

    def _planned(self, preset: str, named: dict[str, Any], tongue: str) -> tuple[str, dict[str, str]]:
        """The plan or the problem as HTML, and what is wrong with which setting."""
        if not (named["dataset_images"] or "").strip():
            return f'<p class="quiet">{say(tongue, "train.no_folder")}</p>', model_problems(
                self.home, preset, named, tongue
            )
        try:
            config = read(self.home, preset, named)
            plan = sentence(self.home, config, tongue)
            notes = "".join(f'<p class="caution">⚠ {escape(text)}</p>' for text in cautions(self.home, config, tongue))
        except InvalidSettings as error:
            shown = InvalidSettings(error.message, hint=say(tongue, "train.mend") if error.places else error.hint)
            return alert_card(explanation(shown, error.code, tongue)), wrong_settings(error, tongue)
        except ModelError as error:
            return problem_card(error, tongue), model_problems(self.home, preset, named, tongue)
        except TrainerError as error:
            return problem_card(error, tongue), {} if error.code == "error" else {
                "dataset.images": on_page(error.message, tongue)
            }
        power = say(tongue, "plan.strength", strength=f"{strength(config):.2g}")
        start = "".join(f"<p>{escape(text)}</p>" for text in started(config, tongue))
        return f'<p class="plan">{plan}</p>{start}<p class="quiet">{power}</p>{notes}', {}

    def _keep_strength(self) -> None:
        """Adapt the learning rate to rank and alpha, where the box for it is ticked."""
        rank, alpha, rate = (self.form.controls[p] for p in SHAPE[:3])

        def note(rank: float, alpha: float, rate: float) -> float | None:
            """The learning strength these values make."""
            return learning_strength(rate, alpha, rank) if rank and alpha and rate else None

        def adapt(rank: float, alpha: float, rate: float, kept: float | None, requested: bool) -> Any:  # noqa: ANN401
            """The learning rate that makes the noted strength with the new rank and alpha."""
            if not requested or not kept or not rank or not alpha:
                return rate
            return float(f"{kept * rank / alpha:.3g}")

        values = [rank, alpha, rate]
        for one in (rank, alpha):
            one.input(adapt, [*values, self.strength, self.keep], rate, **PRIVATE, queue=False)  # type: ignore[attr-defined]
        noted: dict[str, Any] = {"fn": note, "inputs": values, "outputs": self.strength, **PRIVATE, "queue": False}
        for event in (rate.input, self.keep.input):  # type: ignore[attr-defined]
            event(**noted)


def users_own(named: dict[str, Any]) -> dict[str, Any]:
    """What a preset leaves as it is, of an event's inputs, by API name."""
    values = whole(named)
    own = {api_name(place): values[api_name(place)] for place in OF_THE_USER if api_name(place) in values}
    return {name: value for name, value in own.items() if value}


def model_of_rest(named: dict[str, Any]) -> dict[str, Any]:
    """Family and resolution, of an event's inputs."""
    return {"family": named[REST]["model.family"], "resolution": named[REST]["dataset.resolution"]}
