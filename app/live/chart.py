"""The loss chart: its data as plain numbers, and the component that plots them."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from app.kit.component import Element, asset
from app.kit.text import words
from trainer.contract.events import RunView

FloatArray = NDArray[np.float64]
ROW = 64
SMOOTHING = 0.95  # TensorBoard's weight of the past: an average over about 1 / (1 - 0.95) = 20 steps
MAX_POINTS = 1500  # about one a pixel on a wide screen


class ChartData(TypedDict):
    """What the chart plots, ready for JSON; None where a number is not finite."""

    points: list[list[float | None]]  # step, loss, smoothed loss, learning rate
    markers: list[int]  # steps at which previews were generated
    total: int  # planned steps: the right end of the x axis
    summary: str
    words: dict[str, str]  # the labels: they come with the data because each reader may have another language


def chart_data(view: RunView, total: int, language: str = "en", max_points: int = MAX_POINTS) -> ChartData:
    """Returns what the chart shows of a run.

    Args:
        view: The run's events so far.
        total: Planned steps.
        language: The reader's.
        max_points: Most points to draw, at least 5; the average and the summary see every step.
    """
    labels, losses = words(language, "chart."), np.asarray(view.steps.column("loss"))
    averages = smoothed(losses)
    kept = thinned(losses, max_points)
    steps = [view.steps[i] for i in kept]
    columns = [_short(losses[kept]), _short(averages[kept]), _short(np.asarray([step.lr for step in steps]))]
    points = [[step.step, *values] for step, *values in zip(steps, *columns, strict=True)]
    return {
        "points": points,
        "markers": sorted({sample.step for sample in view.samples}),
        "total": total,
        "summary": summary(view, losses, averages, total, labels),
        "words": labels,
    }


def smoothed(losses: Sequence[float] | FloatArray, weight: float = SMOOTHING) -> FloatArray:
    """Bias-corrected exponential average up to each loss (Kingma & Ba 2015, arXiv:1412.6980, section 3).

    Losses that are not finite are passed over; before the first finite one the average is NaN.
    """
    every = np.asarray(losses, dtype=float)
    finite = np.isfinite(every)
    missing = weight ** np.arange(1, finite.sum() + 1)  # the share still left of the zero that the average began with
    with np.errstate(all="ignore"):  # losses near the end of a float's range
        averages = _averages(every[finite], weight) / (1 - missing)
    corrected = np.concatenate(([math.nan], averages))
    result: FloatArray = corrected[np.cumsum(finite)]
    return result


def _averages(losses: FloatArray, weight: float) -> FloatArray:
    """The average that begins with zero: row by row of `ROW` losses, so that only rows are walked through in Python."""
    count = len(losses)
    rows = np.zeros(math.ceil(count / ROW) * ROW)
    rows[:count] = losses
    lag = np.arange(ROW)[:, None] - np.arange(ROW)  # of each loss in a row behind each place in it
    within = rows.reshape(-1, ROW) @ np.where(lag >= 0, (1 - weight) * weight ** np.maximum(lag, 0), 0.0).T
    last = accumulate(within[:, -1].tolist(), lambda past, row: weight**ROW * past + row, initial=0.0)
    carried = np.fromiter(last, dtype=float, count=len(within) + 1)[:-1]
    made: FloatArray = (within + carried[:, None] * weight ** np.arange(1, ROW + 1)).ravel()[:count]
    return made


def thinned(losses: Sequence[float] | FloatArray, bound: int) -> list[int]:
    """Returns ascending indices worth plotting, at most `bound` (5 or more): the ends and each stretch's extremes.

    A stretch is a power of two long and counted from the start, so that new steps leave the plotted curve as it is.
    A loss that is not finite is kept once a stretch: it is a gap in the curve.
    """
    count = len(losses)
    if count <= bound:
        return list(range(count))
    every = np.asarray(losses, dtype=float)
    finite = np.isfinite(every)
    kept_of_each = 2 if finite.all() else 3
    length = 2
    while kept_of_each * math.ceil(count / length) + 2 > bound:
        length *= 2
    rows = math.ceil(count / length)
    starts = np.arange(rows) * length
    table = np.concatenate((every, np.full(rows * length - count, math.nan))).reshape(rows, length)
    plotted = np.isfinite(table)
    any_plotted = plotted.any(axis=1)
    lowest = (starts + np.where(plotted, table, math.inf).argmin(axis=1))[any_plotted]
    highest = (starts + np.where(plotted, table, -math.inf).argmax(axis=1))[any_plotted]
    gaps = np.flatnonzero(~finite)
    first_gaps = gaps[np.unique(gaps // length, return_index=True)[1]]
    kept: list[int] = np.unique(np.concatenate(([0, count - 1], lowest, highest, first_gaps))).astype(int).tolist()
    return kept


def trend(losses: Sequence[float] | FloatArray) -> int:
    """-1, 0 or 1: whether finite losses fall, stay or rise, by the means of the last two fifths of the run.

    A change counts if it is more than twice its standard error: losses of single steps scatter widely. A run under 40
    steps (2 or more) is compared by its halves.
    """
    length = max(20, len(losses) // 5) if len(losses) >= 40 else len(losses) // 2
    recent, before = (np.asarray(part) for part in (losses[-length:], losses[-2 * length : -length]))
    with np.errstate(all="ignore"):  # losses near the end of a float's range
        change = float(recent.mean() - before.mean())
        error = float(np.sqrt((recent.var() + before.var()) / length))
    if not abs(change) > 2 * error:  # not `<=`: NaN is no change either
        return 0
    return -1 if change < 0 else 1


def summary(view: RunView, losses: FloatArray, averages: FloatArray, total: int, labels: dict[str, str]) -> str:
    """Returns the curve in one sentence, for screen readers."""
    if not view.steps:
        return labels["empty"]
    last = view.steps[-1]
    values = {"step": last.step, "total": max(total, last.step), "loss": f"{averages[-1]:.3f}"}
    if not math.isfinite(last.loss):
        return labels["broken"].format(**values)
    finite = np.flatnonzero(np.isfinite(losses))
    if len(finite) < 10:
        return labels["begun"].format(**values)
    settled = finite[min(20, len(finite) // 2) :]  # an average of few steps is low or high by chance
    lowest = int(settled[averages[settled].argmin()])
    direction = labels[{-1: "falling", 0: "steady", 1: "rising"}[trend(losses[finite])]]
    values |= {"trend": direction, "lowest": f"{averages[lowest]:.3f}", "lowest_step": view.steps[lowest].step}
    return labels["going"].format(**values)


def _short(every: FloatArray) -> list[float | None]:
    """Five significant digits, more than a screen can show; None where JSON cannot say it."""
    with np.errstate(all="ignore"):
        factor = 10.0 ** (4 - np.floor(np.log10(np.abs(every))))
        made = np.round(every * factor) / factor
        rounded = np.where(np.isfinite(made), made, every)  # zero, and the ends of a float's range
    return [number if math.isfinite(number) else None for number in rounded.tolist()]


class LossChart(Element):
    """A run's loss, live; the feed brings it what `chart_data` returns."""

    SCRIPTS = ("chart.js",)
    TEMPLATE = asset("live/chart.html")
    STYLE = asset("live/chart.css")
    EMPTY = chart_data(RunView(), total=0)
