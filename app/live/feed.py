"""What the live panel shows of a run, as JSON at `/atelier/live`: every open page asks for it once a second or so.

Not by Gradio's timer: it takes some 100 ms of computing per answer, and many tabs would slow a training on two cores.
"""

import json
import threading
import time
from contextlib import suppress
from hashlib import sha256
from typing import Any

import gradio as gr
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.kit.component import Element
from app.kit.text import language, say
from app.live import parts
from app.live.chart import chart_data
from app.live.compare import compare_data
from app.live.monitor import Watch, Watches
from app.server.files import guarded
from app.server.standby import Standby
from trainer.contract.errors import TrainerError
from trainer.contract.home import Home
from trainer.runs.folder import RunFolder
from trainer.runs.process import reap
from trainer.runs.queue import Queue

PATIENCE_SECONDS = 60  # after which a trainer that does not stop may be ended by force
LOOK_SECONDS = 5.0  # between looks for a run that waits for a trainer that was killed
KEPT = 32  # answers in memory: a few runs in a few languages
SHARE_MS = 200  # of each second per open page: more than five ask less often, for the training needs both cores
SOONEST_MS = 1000
FORGOTTEN_SECONDS = 30.0
PAUSE = "x-atelier-pause"  # the header that says it


class Feed:
    """The answers, made once for all tabs."""

    def __init__(self, home: Home, watches: Watches) -> None:
        self.home, self.watches, self._standby = home, watches, Standby(home)
        self._lock = threading.Lock()
        self._made: dict[tuple[str, str], tuple[str, bytes]] = {}
        self._next_look = 0.0
        self._seen: dict[str, float] = {}  # open pages by their own name, and when each asked last

    def routes(self) -> list[Route]:
        """The route, for those who are logged in."""
        return [Route("/atelier/live", guarded(self._respond))]

    def watch(self, name: str) -> Watch | None:
        """The run's watch, up to date; None if there is no such run."""
        try:
            return self.watches(RunFolder.named(self.home, name)) if name else None
        except TrainerError:
            return None

    def answer(self, name: str, known: str, tongue: str) -> bytes | None:
        """Returns the run's parts as JSON; None if the page has them: `known` is the key of the answer it has."""
        watch = self.watch(name)
        news = self.news(watch)
        key = sha256(repr((name, tongue, news)).encode()).hexdigest()[:16]
        if key == known:
            return None
        with self._lock:
            had, made = self._made.get((name, tongue), ("", b""))
            if had != key:
                parts = nothing(tongue) if watch is None else parts_of(watch, tongue)
                frame = sha256(repr((name, self.frame(watch))).encode()).hexdigest()[:16]
                answer = {"key": key, "frame": frame, "offline": say(tongue, "live.offline"), **parts}
                made = json.dumps(answer, allow_nan=False, separators=(",", ":")).encode()
                while len(self._made) >= KEPT:
                    self._made.pop(next(iter(self._made)))
                self._made[name, tongue] = key, made
        return made

    def news(self, watch: Watch | None) -> list[Any]:
        """Returns all that decides what is shown; cheap to find out."""
        return self.frame(watch) if watch is None else [watch.version, *self.frame(watch)]

    def frame(self, watch: Watch | None) -> list[Any]:
        """Returns what decides which buttons, files and queued runs are shown; it changes seldom."""
        queue = [run.path.name for run in Queue(self.home).waiting()]
        if watch is None:
            return [queue]
        asked = [watch.run.asked_for(what) for what in parts.ENDINGS]
        pressing = [seconds is not None and seconds > PATIENCE_SECONDS for seconds in asked]
        hangs = watch.hangs_since(time.time())
        made = sorted(path.name for path in watch.run.path.glob("*.strength.png"))  # they come without an event
        return [queue, watch.status, [one is not None for one in asked], pressing, hangs, len(watch.view.loras), made]

    def _take_over(self, now: float) -> None:
        """Start the next run after a trainer that was killed; looked for now and then, `now` in seconds."""
        with self._lock:
            if now < self._next_look:
                return
            self._next_look = now + LOOK_SECONDS
        with suppress(TrainerError, OSError):  # whoever opens the Runs page is told
            Queue(self.home).take_over()

    def pause_ms(self, page: str, now: float) -> int:
        """After how many ms this open page may ask again; `now` in seconds."""
        with self._lock:
            self._seen[page] = now
            self._seen = {one: last for one, last in self._seen.items() if now - last < FORGOTTEN_SECONDS}
            return max(SOONEST_MS, SHARE_MS * len(self._seen))

    def _respond(self, request: Request) -> Response:
        """The parts, or 204 if there is nothing new; both say when to ask again."""
        reap()
        self._take_over(time.monotonic())
        self._standby.keep(time.monotonic())
        asked = request.query_params
        headers = {"cache-control": "no-store", PAUSE: str(self.pause_ms(asked.get("page", ""), time.monotonic()))}
        try:
            made = self.answer(asked.get("run", ""), asked.get("key", ""), language(request))
        except OSError:  # the run's folder is being deleted: the next answer knows
            made = None
        if made is None:
            return Response(status_code=204, headers=headers)
        return Response(made, media_type="application/json", headers=headers)


def parts_of(watch: Watch, tongue: str) -> dict[str, Any]:
    """Returns HTML, text and figures, by the names assets/feed.js knows."""
    return {
        "html": {
            "headline": parts.headline(watch, tongue),
            "notices": parts.notices(watch, tongue),
            "board": parts.board(watch, tongue),
        },
        "title": parts.title(watch, tongue),
        "running": None if watch.status == "reading" else watch.status == "running",  # None: not known yet
        "notify": say(tongue, "live.notify"),
        "log": parts.log_tail(watch.run),
        "chart": chart_data(watch.view, watch.steps_total, tongue),
        "compare": compare_data(watch, tongue),
    }


def nothing(tongue: str) -> dict[str, Any]:
    """Returns the parts while there is no run."""
    empty = f'<div class="empty">{say(tongue, "live.nothing")}</div>'
    return {
        "html": {"headline": empty, "notices": "", "board": ""},
        "title": "",
        "running": False,
        "notify": "",
        "log": "",
        "chart": None,
        "compare": None,
    }


class Headline(Element):
    """The run's state; its value is the name of the run that is shown. Its script brings all parts their news."""

    SCRIPTS = ("feed.js",)
    TEMPLATE = '<div data-part="headline"></div><button type="button" class="notify" hidden></button>'

    def postprocess(self, value: Any) -> str:  # noqa: ANN401 - a name or None
        """The name."""
        return str(value or "")


def place(part: str) -> gr.HTML:
    """Where a part of this name is put."""
    return gr.HTML(f'<div data-part="{part}"></div>', apply_default_css=False)
