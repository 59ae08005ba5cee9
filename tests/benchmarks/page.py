"""What the page costs: `python tests/benchmarks/page.py`; what it costs a training: the same with `--tabs 20`.

The start is measured on real servers, the live panel by calling what its requests call on a log of 20,000 steps.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from app.live.feed import PAUSE, Feed
from app.live.monitor import Watches
from trainer.contract.events import EventLog, RunStarted, Step
from trainer.contract.home import Home
from trainer.contract.settings.config import validated
from trainer.runs.folder import RunFolder
from trainer.runs.queue import Queue

STEPS, STARTS, TICKS = 20_000, 3, 200
PORT = 7935


@contextmanager
def server(home: Path) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """A page's server, and the seconds from its start to the first answer."""
    command = [sys.executable, "launch.py", "--no-browser", "--port", str(PORT), "--home", str(home)]
    before = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            try:
                ask("/")
            except URLError:
                time.sleep(0.02)
                continue
            break
        yield process, time.perf_counter() - before
    finally:
        process.terminate()
        process.wait()


def ask(path: str, body: object = None) -> bytes:
    """A request to the server, as a browser makes it."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(f"http://127.0.0.1:{PORT}{path}", data, {"Content-Type": "application/json"})
    with urlopen(request, timeout=60) as answer:  # noqa: S310 - our own server
        return answer.read()


def tell(line: str) -> None:
    """One line on the console."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def starts(folder: Path) -> None:
    """From the command to the HTML, and what that process holds."""
    seconds, torch = [], False
    for _ in range(STARTS):
        with server(folder / "empty home") as (process, taken):
            seconds.append(taken)
            maps = Path(f"/proc/{process.pid}/maps")
            torch = torch or (maps.exists() and "libtorch" in maps.read_text())
    every = ", ".join(f"{one:.1f}" for one in seconds)
    tell(f"start to HTML: {statistics.median(seconds):.1f} s (median of {every}); torch in the server: {torch}")


def a_step(number: int) -> Step:
    """One step of a falling, noisy curve."""
    loss = 0.1 + math.exp(-number / 4000) * (0.2 + 0.1 * math.sin(number * 12.9898))
    return Step(step=number, epoch=number // 100, loss=loss, lr=1e-4, grad_norm=0.5, seconds=0.4, memory_gib=1.0)


def panel_costs(folder: Path) -> None:
    """Milliseconds of a tick: the first of a tab, one without news, one with ten new steps."""
    home = Home(folder / "home")
    run = RunFolder.create(home, validated({"output": {"name": "long"}}))
    started = RunStarted(
        family="sd15",
        base_model="pocket",
        steps_total=2 * STEPS,
        resumed_at=0,
        device="cpu",
        memory_gib=1.0,
        versions={},
    )
    with EventLog(run.events_file) as log:
        log.write(started)
        for number in range(1, STEPS + 1):
            log.write(a_step(number))
        first = [_tick(Feed(home, Watches()), run, "")[0] for _ in range(5)]
        feed = Feed(home, Watches())
        _, seen = _tick(feed, run, "")
        tabs = [_tick(feed, run, "")[0] for _ in range(20)]
        idle = [_tick(feed, run, seen)[0] for _ in range(TICKS)]
        news = []
        for tick in range(TICKS):
            for number in range(10):
                log.write(a_step(STEPS + 10 * tick + number + 1))
            taken, seen = _tick(feed, run, seen)
            news.append(taken)
    for what, taken in (
        (f"opening the panel on {STEPS} steps, by a server that has not read them", first),
        ("the same in a further tab", tabs),
        ("a tick without news", idle),
        ("a tick with 10 new steps", news),
    ):
        tell(f"{what}: {statistics.median(taken) * 1000:.2f} ms (median of {len(taken)})")


def _tick(feed: Feed, run: RunFolder, seen: str) -> tuple[float, str]:
    """Seconds of one answer, and the key of what the tab has then."""
    before = time.perf_counter()
    made = feed.answer(run.path.name, seen, "en")
    return time.perf_counter() - before, seen if made is None else json.loads(made)["key"]


def with_and_without_tabs(folder: Path, tabs: int, count: int) -> None:
    """The same training alone and with tabs that poll, in turns: its seconds, and whether the LoRA is the same."""
    home = folder / "tabs"
    with server(home):
        _train(home, 0)  # warms the disk and the caches
        rounds = [(_train(home, 0), _train(home, tabs)) for _ in range(count)]
    alone, watched = rounds[0]
    from safetensors.torch import load_file

    ours, theirs = load_file(alone[1]), load_file(watched[1])
    equal = ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)
    seconds = [statistics.median(side) for side in zip(*((a[0], w[0]) for a, w in rounds), strict=True)]
    every = ", ".join(f"{a[0]:.1f}/{w[0]:.1f}" for a, w in rounds)
    tell(
        f"training with {tabs} tabs: x{seconds[1] / seconds[0]:.3f} (alone/with tabs: {every} s); same tensors: {equal}"
    )


def _train(home: Path, tabs: int) -> tuple[float, Path]:
    """Seconds between the first and the last step, and the LoRA file."""
    values = {
        "model": {"base_model": "pocket", "device": "cpu"},
        "dataset": {"images": str(ROOT / "assets/demo/style/train"), "views": 25, "batch_size": 4, "resolution": 64},
        "preview": {"prompts": ["fox"], "steps": 2, "every": 1_000_000},
        "output": {"name": f"tabs-{tabs}", "files": 1, "checkpoint_every": 1_000_000},
    }
    run = RunFolder.create(Home(home), validated(values))
    Queue(Home(home)).start(run)
    done = threading.Event()
    polling = threading.Thread(target=_poll, args=(run.path.name, tabs, done))
    polling.start()
    while run.process() is not None:
        time.sleep(0.2)
    done.set()
    polling.join()
    steps = run.view().steps
    return steps[-1].t - steps[0].t, next(run.path.glob("*.safetensors"))


def _poll(run: str, tabs: int, done: threading.Event) -> None:
    """What so many open tabs send, by one thread over open connections, so that the sending itself costs little."""
    pages = [(HTTPConnection("127.0.0.1", PORT), f"page-{number}") for number in range(tabs)]
    keys = dict.fromkeys(range(tabs), "")
    due = dict.fromkeys(range(tabs), 0.0)
    while not done.wait(0.1):
        for number, (line, page) in enumerate(pages):
            if time.monotonic() < due[number]:
                continue
            line.request("GET", f"/atelier/live?{urlencode({'run': run, 'key': keys[number], 'page': page})}")
            answer = line.getresponse()
            due[number] = time.monotonic() + int(answer.headers[PAUSE]) / 1000
            body = answer.read()
            keys[number] = body[8:24].decode() if body else keys[number]  # {"key":"…


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--tabs", type=int, default=0, help="Only compare a training alone with one that so many watch."
    )
    parser.add_argument("--rounds", type=int, default=3, help="How often each of the two trains.")
    flags = parser.parse_args()
    os.environ.setdefault("NO_PROXY", "127.0.0.1")
    with tempfile.TemporaryDirectory() as folder:
        if flags.tabs:
            with_and_without_tabs(Path(folder), flags.tabs, flags.rounds)
        else:
            starts(Path(folder))
            panel_costs(Path(folder))


if __name__ == "__main__":
    main()
