"""What a run of 200,000 steps costs the page at first look: `python tests/benchmarks/long_run.py`.

A new process opens the live panel's answer, the run's card and its status: with what the trainer keeps beside the log,
and with the log alone, as an earlier version left it. It prints seconds until the first answer and until the whole run
is shown, seconds of computing, the longest that another run's answer took meanwhile, and the growth of memory (Linux).
With `--checkout DIR` it measures another checkout.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
STEPS = 200_000
MIB = 2**20


def make(home: Path, name: str, steps: int) -> Path:
    """A run folder with a log of so many steps, previews and LoRA files; returns the log."""
    folder = home / "runs" / name
    (folder / "control").mkdir(parents=True)
    (folder / "config.toml").write_text("", encoding="utf-8")
    started = {"family": "sd15", "base_model": "x", "steps_total": steps, "resumed_at": 0, "device": "cpu"}
    events = [{"type": "run_started", **started, "memory_gib": 1.0, "versions": {}}]
    for step in range(1, steps + 1):
        loss = 0.1 + math.exp(-step / 40_000) * (0.2 + 0.1 * math.sin(step * 12.9898))
        figures = {"loss": loss, "lr": 1e-4, "grad_norm": 0.5, "seconds": 0.4, "memory_gib": 1.0}
        events.append({"type": "step", "step": step, "epoch": step / 100, **figures})
        if step % 1000 == 0:
            events.append({"type": "checkpoint", "step": step, "folder": f"checkpoints/{step:06}"})
    events.append({"type": "run_finished", "reason": "completed", "step": steps, "seconds": 0.4 * steps})
    begun = time.time() - len(events)
    lines = (json.dumps({"v": 1, "seq": i, "t": begun + i, **event}) + "\n" for i, event in enumerate(events))
    (folder / "events.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder / "events.jsonl"


def peak() -> int:
    """The most memory this process has had, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def look(home: Path) -> None:
    """Measure a first look, in a process of its own."""
    from app.api import state_of
    from app.live.feed import Feed
    from app.live.monitor import Watches
    from app.runs.cards import card
    from app.runs.cards import look as glance
    from trainer.contract.home import Home
    from trainer.runs.folder import RunFolder

    feed = Feed(Home(home), Watches())
    feed.answer("short", "", "en")  # what any first answer loads
    run, waits, ended = RunFolder.named(feed.home, "long"), [0.0], threading.Event()

    def others() -> None:
        while not ended.wait(0.01):
            begun = time.perf_counter()
            feed.answer("short", "", "en")
            waits.append(time.perf_counter() - begun)

    before = peak()
    asking = threading.Thread(target=others)
    asking.start()
    begun, computing = time.perf_counter(), time.process_time()
    feed.answer("long", "", "en")
    first = time.perf_counter() - begun
    while getattr(feed.watches(run), "behind", False):
        time.sleep(0.01)
    feed.answer("long", "", "en")
    card(glance(run, feed.watches), "en")
    whole, cpu = time.perf_counter() - begun, time.process_time() - computing
    steps = state_of(feed.watches(run))["step"]
    ended.set()
    asking.join()
    sys.stdout.write(
        f"first answer {first:.2f} s, whole after {whole:.2f} s, computing {cpu:.2f} s, "
        f"another waited {max(waits):.2f} s, memory +{(peak() - before) / MIB:.0f} MiB, step {steps}\n"
    )


def summarize(log: Path) -> None:
    """What the trainer leaves beside its log."""
    from trainer.contract.events import EventLog

    with EventLog(log):
        pass


def child(checkout: Path, what: str, path: Path) -> None:
    """Run a part of this in a process of its own, with that checkout's code."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    subprocess.run([sys.executable, __file__, "--part", what, str(path)], env=environment, cwd=checkout, check=True)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkout", type=Path, default=ROOT, help="Whose page is measured.")
    parser.add_argument("--steps", type=int, default=STEPS, help="Steps of the run.")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.part:
        {"look": look, "summarize": summarize}[flags.part[0]](Path(flags.part[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        log = make(home, "long", flags.steps)
        make(home, "short", 10)
        sys.stdout.write(f"{flags.steps} steps, a log of {log.stat().st_size / MIB:.0f} MiB\n")
        for kept in (False, True):
            if kept:
                child(flags.checkout, "summarize", log)
            else:
                for left in log.parent.glob("*.summary"):
                    left.unlink()
            sys.stdout.write("with what the trainer keeps: " if kept else "the log alone: ")
            sys.stdout.flush()
            child(flags.checkout, "look", home)


if __name__ == "__main__":
    main()
