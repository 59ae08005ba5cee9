"""Runs as cards, and two of them side by side, as HTML: pure functions of what their folders hold."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path, PureWindowsPath
from typing import Literal
from urllib.parse import quote

import numpy as np

from app.kit.text import say
from app.kit.wording import html_of
from app.live.chart import smoothed, thinned
from app.live.monitor import Watch, Watches
from app.live.parts import progress_bar, status_words
from app.server.files import thumbnail_url
from trainer.contract.errors import TrainerError
from trainer.contract.events import RunFailed, RunView, Sample, Status
from trainer.contract.settings.config import TrainConfig
from trainer.contract.units import duration
from trainer.runs.folder import RunFolder

State = Status | Literal["reading", "damaged"]
Curve = Sequence[tuple[int, float]]  # step, smoothed loss

WIDTH, HEIGHT = 100.0, 40.0  # units of a plot; the page stretches it to the room there is
SPARK_POINTS, CURVE_POINTS = 80, 600
MARKS: dict[State, str] = {  # paths on 16 × 16, so that a state has a shape besides its words
    "waiting": "M8 2.5a5.5 5.5 0 1 0 .01 0M8 5v3.2l2.2 1.4",
    "reading": "M4 2.5h8M4 13.5h8M5 3v2l3 3 3-3V3M5 13v-2l3-3 3 3v2",
    "running": "M5 3l8 5-8 5z",
    "completed": "M3 8.5l3.5 3.5L13 4.5",
    "stopped": "M4 4h8v8H4z",
    "paused": "M5.5 3.5v9M10.5 3.5v9",
    "failed": "M4 4l8 8M12 4l-8 8",
    "interrupted": "M9 2L4 9h4l-1 5 5-7H8z",
    "damaged": "M8 2l6.5 11.5h-13zM8 6.5v3M8 11.5v.1",
}


@dataclass(frozen=True)
class Glance:
    """What can be known of a run, also of one whose files are damaged."""

    run: RunFolder
    watch: Watch
    config: TrainConfig | None  # None: it cannot be read
    problem: str = ""  # what is wrong with the folder

    @property
    def name(self) -> str:
        """The run's own name: that of its folder, which no other run has."""
        return self.run.path.name

    @property
    def state(self) -> State:
        """The run's state, or that its files cannot be read."""
        return "damaged" if self.problem else state_of(self.watch)


def look(run: RunFolder, watches: Watches) -> Glance:
    """Returns the run with whatever can be read of it."""
    watch, config, problems = Watch(run), None, []
    try:
        watch = watches(run)
    except TrainerError as error:
        problems.append(error.message)
    except OSError as error:
        problems.append(f"{run.events_file} cannot be read: {error.strerror}.")
    try:
        config = run.config()
    except TrainerError as error:
        problems.append(error.message)
    return Glance(run, watch, config, " ".join(problems))


def state_of(watch: Watch) -> Status | Literal["reading"]:
    """Returns the run's state; its process is looked for only if the log has no end."""
    if watch.behind:
        return "reading"
    return watch.status if watch.view.ended is None else watch.view.status(alive=False)


def card(glance: Glance, language: str) -> str:
    """Returns one run: image, name, state, steps, loss, base model and date."""
    title = escape((glance.config.output.name if glance.config else "") or glance.name)
    if not glance.problem:
        title = f'<a href="{train_url(glance.name)}" title="{escape(glance.name, quote=True)}">{title}</a>'
    return (
        f'<li class="run-card">{_image(glance, language)}<div class="run-words"><h3>{title}</h3>'
        f"{_state_line(glance, language)}{_remark(glance, language)}"
        f'<p class="quiet">{escape(" · ".join(_made_from(glance)))}</p>'
        f'<p class="quiet run-when">{" ".join(_when(glance, language))}</p></div>'
        f"{spark(glance.watch.view, language)}</li>"
    )


def train_url(name: str) -> str:
    """The address of the page that shows this run."""
    return f"/live?run={quote(name, safe='')}"


def _image(glance: Glance, language: str) -> str:
    """The newest preview, small."""
    samples = glance.watch.view.samples
    newest = max(samples, key=lambda sample: (sample.step, -sample.index), default=None)
    file = image_file(glance.run, newest) if newest else None
    if newest is None or file is None:
        return f'<div class="run-picture run-blank"><span>{say(language, "runs.no_preview")}</span></div>'
    return (
        f'<div class="run-picture"><img src="{thumbnail_url(file)}" '
        f'alt="{described(newest, language)}" loading="lazy"></div>'
    )


def image_file(run: RunFolder, sample: Sample) -> Path | None:
    """A preview's file, if it is there and inside the run's folder: a damaged log may name any."""
    try:
        file = run.inside(sample.file)
        return file if file.is_file() else None
    except (TrainerError, OSError, ValueError):  # the last is a name that no file can have
        return None


def described(sample: Sample, language: str) -> str:
    """A preview in words, for an attribute."""
    return escape(f"{sample.prompt}, {say(language, 'live.at_step', step=sample.step)}", quote=True)


def _state_line(glance: Glance, language: str) -> str:
    """Mark and name of the state and the steps done; a bar while it runs."""
    state, watch = glance.state, glance.watch
    words = [f"<strong>{state_words(state, watch.view, language)}</strong>"]
    if watch.steps_total:
        words.append(f"<span>{say(language, 'live.step', step=watch.step, total=watch.steps_total)}</span>")
    line = f'<p class="run-state run-{state}">{mark(state)}<span>{" ".join(words)}</span></p>'
    return line + (progress_bar(watch, language) if state == "running" else "")


def state_words(state: State, view: RunView, language: str) -> str:
    """Returns the state in words; shorter than on the Train page."""
    if state == "damaged":
        return say(language, "runs.damaged")
    if state == "interrupted":
        return say(language, "runs.interrupted")
    return status_words(state, view, language)


def mark(state: State) -> str:
    """Returns the state's icon; the words beside it say the same."""
    return f'<svg class="run-mark" viewBox="0 0 16 16" aria-hidden="true"><path d="{MARKS[state]}"/></svg>'


def _remark(glance: Glance, language: str) -> str:
    """What is wrong, or how to resume."""
    ended = glance.watch.view.ended
    if glance.problem:
        return f'<p class="run-problem">{html_of(glance.problem, language)}</p>'
    if isinstance(ended, RunFailed):
        return f'<p class="run-problem">{html_of(ended.message, language)}</p>'
    if glance.watch.view.diverged:
        return f'<p class="run-problem">{html_of(glance.watch.view.diverged.message, language)}</p>'
    if glance.state in ("interrupted", "paused"):
        return f"<p>{say(language, 'runs.continue')}</p>"
    return ""


def _made_from(glance: Glance) -> list[str]:
    """Family, base model and preset, as far as they are known."""
    started, config = glance.watch.view.started, glance.config
    family = started.family if started else config.model.family if config else ""
    base = started.base_model if started else config.model.base_model if config else ""
    # The last part of a path; this class knows both separators
    return list(filter(None, [family, PureWindowsPath(base).name, config.preset if config else ""]))


def _when(glance: Glance, language: str) -> list[str]:
    """The day it was made, and how long its steps took."""
    words = []
    with suppress(OSError):  # deleted at this moment: the next look leaves it out
        words.append(f"<span>{date(glance.run.config_file.stat().st_mtime, language)}</span>")
    seconds = sum(glance.watch.view.steps.column("seconds"))
    if seconds:
        words.append(f"<span>{say(language, 'runs.trained', duration=duration(seconds))}</span>")
    return words


def date(seconds: float, language: str) -> str:
    """A moment, given in Unix seconds, by the reader's calendar and this computer's clock."""
    moment = time.localtime(seconds)
    return say(
        language,
        "runs.date",
        day=moment.tm_mday,
        month=say(language, "runs.months").split()[moment.tm_mon - 1],
        year=moment.tm_year,
        clock=time.strftime("%H:%M", moment),
    )


def spark(view: RunView, language: str) -> str:
    """The smoothed loss as a small line, and in words for who does not see it."""
    points = curve(view, SPARK_POINTS)
    if len(points) < 2:
        return ""
    frame = Frame.around([points])
    return (
        f'<svg class="run-spark" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(in_words(points, language), quote=True)}"><path d="{frame.path(points)}"/></svg>'
    )


def curve(view: RunView, bound: int) -> Curve:
    """The smoothed loss, at most `bound` points (5 or more).

    Left out are losses that are not finite, and the beginning, where an average of few steps is high or low by chance.
    """
    losses = view.steps.column("loss")
    averages = smoothed(losses)
    finite = np.flatnonzero(np.isfinite(averages))
    settled = finite[min(20, len(finite) // 2) :]
    means = averages[settled]
    with np.errstate(over="ignore"):
        rounded = np.round(means, 12)  # for a flat curve is lowest at its start
    means = np.where(np.isfinite(rounded), rounded, means)  # what is too large to be rounded
    return [(view.steps[settled[i]].step, float(means[i])) for i in thinned(means, bound)]


def in_words(points: Curve, language: str) -> str:
    """Returns a curve in one sentence; its lowest point is among those plotted."""
    (step, last), (lowest_step, lowest) = points[-1], min(points, key=lambda point: point[1])
    return say(
        language, "runs.spark", loss=f"{last:.3f}", step=step, lowest=f"{lowest:.3f}", lowest_step=lowest_step
    )  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """The part of the plane that a plot shows."""

    first: int
    last: int
    low: float
    high: float

    @classmethod
    def around(cls, curves: Sequence[Curve]) -> Frame:
        """The smallest frame that holds all these points, of which there must be one."""
        steps = [step for points in curves for step, _ in points]
        losses = [loss for points in curves for _, loss in points]
        return cls(min(steps), max(steps), min(losses), max(losses))

    def path(self, points: Curve) -> str:
        """The points as SVG path data, a line's width away from the upper and lower edge."""
        wide, tall = (self.last - self.first) or 1, (self.high - self.low) or 1.0
        places = [
            f"{WIDTH * (step - self.first) / wide:.2f} {1 + (HEIGHT - 2) * (self.high - loss) / tall:.2f}"
            for step, loss in points
        ]
        return "M" + "L".join(places)
