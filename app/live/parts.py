"""The live panel's parts as HTML: pure functions of a watch, so that all tabs and reloads agree."""

import time
from collections import deque
from html import escape
from typing import Literal

from app.kit.cards import alert_card, explanation
from app.kit.text import say
from app.live.monitor import Watch
from app.server.files import run_url
from trainer.contract.events import RunFailed, RunFinished, RunView, Sample, Status, Warned
from trainer.contract.ours import open_plain
from trainer.contract.units import duration
from trainer.runs.folder import RunFolder
from trainer.runs.workfolder import Request

LOG_LINES, LOG_BYTES = 40, 2**14
ENDINGS: tuple[Request, ...] = ("stop", "pause")
BOARD_COLUMNS = 24  # the newest ones; older previews stay in the run's folder


def status_words(status: Status | Literal["reading"], view: RunView, language: str) -> str:
    """Returns the status in words; of a running one its phase."""
    if status == "running" and view.phase is not None and view.phase.name != "train":
        return say(language, f"phase.{view.phase.name}")
    if status == "stopped" and isinstance(view.ended, RunFinished) and view.ended.step == 0:
        return say(language, "state.stopped_early")  # with nothing that could have been saved
    return say(language, f"state.{status}")


def title(watch: Watch, language: str) -> str:
    """Returns what the browser's tab says: "42 % ana" while it trains, else its state."""
    name = watch.run.called
    if watch.status == "running" and watch.steps_total:
        return f"{100 * watch.step // watch.steps_total} % {name}"
    return f"{status_words(watch.status, watch.view, language)} · {name}"


def headline(watch: Watch, language: str) -> str:
    """Returns state, step, speed and time left, as a status line with a progress bar."""
    status = watch.status
    words = [f"<strong>{status_words(status, watch.view, language)}</strong>"]
    if watch.steps_total:
        words.append(say(language, "live.step", step=watch.step, total=watch.steps_total))
    each, left = watch.seconds_per_step, watch.seconds_left
    if status == "running" and each is not None and left is not None:
        clock = time.strftime("%H:%M", time.localtime(time.time() + left))
        words.append(say(language, "live.speed", seconds=f"{each:.2f}"))
        words.append(say(language, "live.left", duration=duration(left), clock=clock))
    if status == "running":
        hangs = watch.hangs_since(time.time())
        if hangs is not None:
            words.append(say(language, "live.hangs", clock=time.strftime("%H:%M", time.localtime(hangs))))
        words += [say(language, f"live.asked_{what}") for what in ENDINGS if watch.run.asked_for(what) is not None]
    name = escape(watch.run.path.name)
    return (
        f'<div class="headline {status}"><h2>{name}</h2><p role="status">{" · ".join(words)}</p>'
        f"{progress_bar(watch, language)}{device_line(watch, language)}</div>"
    )


def progress_bar(watch: Watch, language: str) -> str:
    """Returns how much of the run is done, as a bar."""
    share = watch.step / watch.steps_total if watch.steps_total else 0.0
    return f'<progress max="1" value="{share:.4f}" aria-label="{say(language, "live.progress")}"></progress>'


def device_line(watch: Watch, language: str) -> str:
    """Returns the device and the memory in use."""
    started = watch.view.started
    if started is None:
        return ""
    memory = watch.view.steps[-1].memory_gib if watch.view.steps else started.memory_gib
    return f'<p class="quiet">{escape(started.device)} · {say(language, "live.memory", gib=f"{memory:.2f}")}</p>'


def notices(watch: Watch, language: str) -> str:
    """Returns warnings, and the failure if there is one: what happened, the value seen, what to do."""
    note, failed = say(language, "live.note"), watch.view.ended
    cards = [
        f'<div class="notice" role="note"><strong>{note}</strong> {explanation(w, w.code, language)}</div>'
        for w in _shown(watch.view)
    ]
    if isinstance(failed, RunFailed):
        said = explanation(failed, failed.code, language)
        cards.append(alert_card(f"<strong>{say(language, 'state.failed')}:</strong> {said}"))
    return "".join(cards)


def _shown(view: RunView) -> list[Warned]:
    """The newest warnings, and the one that belongs to the result however many came after it."""
    older = [view.diverged] if view.diverged and view.diverged not in view.warnings[-3:] else []
    return older + view.warnings[-3:]


def board(watch: Watch, language: str) -> str:
    """Returns the previews: one row per prompt, one column per step, from step 0 on."""
    rows: dict[int, dict[int, Sample]] = {}
    for sample in watch.view.samples:
        rows.setdefault(sample.index, {})[sample.step] = sample
    if not rows:
        return f'<p class="quiet">{say(language, "live.no_previews")}</p>'
    every = sorted({step for row in rows.values() for step in row})
    steps = [every[0], *every[1:][-BOARD_COLUMNS:]]
    head = "".join(f'<th scope="col">{say(language, "live.at_step", step=step)}</th>' for step in steps)
    lines = [
        f'<tr><th scope="row">{escape(next(iter(row.values())).prompt)}</th>'
        + "".join(_image(watch.run, row[step]) if step in row else "<td></td>" for step in steps)
        + "</tr>"
        for _, row in sorted(rows.items())
    ]
    return (
        f'<div class="board" tabindex="0" role="region" aria-label="{say(language, "live.board")}"><table dir="ltr">'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _image(run: RunFolder, sample: Sample) -> str:
    url = run_url(run, sample.file)
    described = escape(f"{sample.prompt}, {sample.step}", quote=True)
    return f'<td><a href="{url}" target="_blank"><img src="{url}" alt="{described}" loading="lazy"></a></td>'


def log_tail(run: RunFolder) -> str:
    """Returns the last lines of the process's raw output."""
    try:
        with open_plain(run.log_file) as file:
            file.seek(max(run.log_file.stat().st_size - LOG_BYTES, 0))
            lines = deque(file.read(LOG_BYTES).decode(errors="replace").splitlines(), maxlen=LOG_LINES)
    except FileNotFoundError:
        return ""
    return "\n".join(line.rpartition("\r")[2] for line in lines)
