"""Two runs side by side, as HTML."""

from collections.abc import Sequence
from html import escape
from typing import Any

from app.kit.rows import SETTINGS
from app.kit.text import say
from app.kit.wording import html_of, section_name, setting_name
from app.runs.cards import (
    CURVE_POINTS,
    HEIGHT,
    WIDTH,
    Curve,
    Frame,
    Glance,
    curve,
    described,
    image_file,
    in_words,
    mark,
    state_words,
    train_url,
)
from app.server.files import run_url
from trainer.contract.events import RunView, Sample
from trainer.contract.toml import flat
from trainer.runs.folder import RunFolder

Pair = tuple[Glance, Glance]


def comparison(pair: Pair, language: str) -> str:
    """Two runs side by side: settings that differ, curves, newest previews."""
    names = "".join(
        f'<li><span class="run-letter">{letter}</span><a href="{train_url(one.name)}">{escape(one.name)}</a> '
        f'<span class="run-state run-{one.state}">{mark(one.state)}'
        f"<span>{state_words(one.state, one.watch.view, language)}</span></span>"
        + (f'<p class="run-problem">{html_of(one.problem, language)}</p>' if one.problem else "")
        + "</li>"
        for letter, one in zip("AB", pair, strict=True)
    )
    parts = [differing_settings(pair, language), both_curves(pair, language), both_previews(pair, language)]
    return f'<ul class="run-pair">{names}</ul>{"".join(parts)}'


def differing_settings(pair: Pair, language: str) -> str:
    """A table of the settings that the two runs do not share; the name is left out, for it changes nothing."""
    head = f"<h3>{say(language, 'runs.settings')}</h3>"
    if pair[0].config is None or pair[1].config is None:
        return f'{head}<p class="quiet">{say(language, "runs.unknown_settings")}</p>'
    ours, theirs = flat(pair[0].config), flat(pair[1].config)
    rows = "".join(
        f'<tr><th scope="row">{_setting_name(place, language)}</th>'
        f"<td>{_setting_value(place, ours[place], language)}</td>"
        f"<td>{_setting_value(place, theirs[place], language)}</td></tr>"
        for place in ours
        if ours[place] != theirs[place] and place != "output.name"
    )
    if not rows:
        return f'{head}<p class="quiet">{say(language, "runs.same_settings")}</p>'
    columns = f'<th scope="col">{say(language, "runs.setting")}</th><th scope="col">A</th><th scope="col">B</th>'
    return f'{head}<table class="run-settings"><thead><tr>{columns}</tr></thead><tbody>{rows}</tbody></table>'


def _setting_name(place: str, language: str) -> str:
    """A setting's name as the Train page has it, and its section: several have a seed."""
    if place not in SETTINGS:
        return escape(say(language, {"preset": "train.preset", "goal": "runs.goal"}[place]))
    name, section = setting_name(place, language), section_name(SETTINGS[place].section, language)
    return f'{escape(name)} <span class="quiet">{escape(section)}</span>'


def _setting_value(place: str, value: Any, language: str) -> str:  # noqa: ANN401 - any setting's value
    match value:
        case bool():
            return say(language, "runs.on" if value else "runs.off")
        case int() | float():
            return f"{value:.10g} {SETTINGS[place].unit}".rstrip()
        case tuple():
            return "<br>".join(map(escape, value)) or say(language, "runs.nothing")
        case _:
            return escape(value) or say(language, "runs.nothing")


def both_curves(pair: Pair, language: str) -> str:
    """Returns both smoothed losses in one plot, in different colors and dashes, and each in words."""
    head = f"<h3>{say(language, 'runs.curves')}</h3>"
    curves = [curve(one.watch.view, CURVE_POINTS) for one in pair]
    if not any(curves):
        return f'{head}<p class="quiet">{say(language, "runs.no_curves")}</p>'
    described_as = [in_words(points, language) if points else say(language, "runs.no_curves") for points in curves]
    legend = "".join(
        f'<li><svg viewBox="0 0 32 8" aria-hidden="true"><path class="run-line-{letter}" d="M0 4H32"/></svg>'
        f"<strong>{letter}</strong> {escape(words)}</li>"
        for letter, words in zip("AB", described_as, strict=True)
    )
    return f'{head}{_plot(curves, " ".join(described_as), language)}<ul class="run-legend">{legend}</ul>'


def _plot(curves: Sequence[Curve], described_as: str, language: str) -> str:
    """The curves within their axes; the numbers stand outside the plot, which is stretched."""
    frame = Frame.around([points for points in curves if points])
    lines = "".join(
        f'<path class="run-line-{letter}" d="{frame.path(points)}"/>'
        for letter, points in zip("AB", curves, strict=True)
        if points
    )
    losses = "".join(f"<span>{loss:.3f}</span>" for loss in (frame.high, (frame.high + frame.low) / 2, frame.low))
    steps = "".join(f"<span>{say(language, 'live.at_step', step=step)}</span>" for step in (frame.first, frame.last))
    return (
        f'<div class="run-chart"><div class="run-losses" aria-hidden="true">{losses}</div>'
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(described_as, quote=True)}">'
        f'<path class="run-grid" d="M0 1H100M0 20H100M0 39H100"/>{lines}</svg>'
        f'<div class="run-steps" aria-hidden="true">{steps}</div></div>'
    )


def both_previews(pair: Pair, language: str) -> str:
    """The newest preview of every prompt, one run beside the other."""
    head = f"<h3>{say(language, 'runs.previews')}</h3>"
    ours, theirs = (newest_by_prompt(one.watch.view) for one in pair)
    if not ours and not theirs:
        return f'{head}<p class="quiet">{say(language, "runs.no_previews")}</p>'
    blocks = []
    for key in dict.fromkeys([*ours, *theirs]):
        figures = "".join(
            _figure(one.run, letter, found.get(key), language)
            for letter, one, found in zip("AB", pair, (ours, theirs), strict=True)
        )
        blocks.append(f'<li><h4>{escape(key[0])}</h4><div class="run-two">{figures}</div></li>')
    return f'{head}<ul class="run-previews">{"".join(blocks)}</ul>'


def newest_by_prompt(view: RunView) -> dict[tuple[str, int], Sample]:
    """Returns each prompt's newest preview; the second number counts equal prompts."""
    found: dict[tuple[str, int], Sample] = {}
    for sample in {sample.index: sample for sample in view.samples}.values():
        times = sum(prompt == sample.prompt for prompt, _ in found)
        found[sample.prompt, times] = sample
    return found


def _figure(run: RunFolder, letter: str, sample: Sample | None, language: str) -> str:
    if sample is None or image_file(run, sample) is None:
        image, words = '<div class="run-blank"></div>', say(language, "runs.no_preview")
    else:
        url, words = run_url(run, sample.file), say(language, "live.at_step", step=sample.step)
        image = f'<img src="{url}" alt="{letter}: {described(sample, language)}" loading="lazy">'
        image = f'<a href="{url}" target="_blank">{image}</a>'
    return f"<figure>{image}<figcaption>{letter} · {words}</figcaption></figure>"
