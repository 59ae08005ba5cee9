"""What more processes bring on this computer: `python tests/benchmarks/processes.py`.

Trains the pocket-style preset in short runs with one process and with several, in turns, as a user would start them;
seconds per step are read from the runs' events.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from trainer.contract.home import Home
from trainer.contract.presets import FOLDER, load_preset, overlay
from trainer.planning.ready import settled
from trainer.runs import process
from trainer.runs.folder import RunFolder
from trainer.runs.process import Group

WARM_UP = 3  # steps left out


def seconds(home: Home, processes: int, views: int, batch: int) -> list[float]:
    """Each step's seconds in a run with so many processes."""
    short = {
        "model": {"device": "cpu"},
        "dataset": {"views": views, "batch_size": batch},
        "preview": {"prompts": ["fox"], "steps": 1},
        "output": {"name": f"by {processes}", "files": 1, "checkpoint_every": 1_000_000},
    }
    config, _ = overlay({"preset": load_preset("pocket-style", FOLDER).values, "short": short})
    run = RunFolder.create(home, settled(config))
    if process.start(run, Group(processes)).wait():
        sys.exit(run.log_file.read_text())
    return [step.seconds for step in run.view().steps][WARM_UP:]


def main() -> None:
    """Print a line for each number of processes, and how the throughputs compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--views", type=int, default=12)
    parser.add_argument("--batch", type=int, default=8)
    flags = parser.parse_args()
    taken: dict[int, list[list[float]]] = {number: [] for number in flags.processes}
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        for _ in range(flags.rounds):
            for number in flags.processes:
                taken[number].append(seconds(home, number, flags.views, flags.batch))
    fastest = {number: min(min(steps) for steps in runs) for number, runs in taken.items()}
    median = {number: min(statistics.median(steps) for steps in runs) for number, runs in taken.items()}
    first = flags.processes[0]
    sys.stdout.write("processes  fastest step  median of the quietest run  throughput by these\n")
    for number in flags.processes:
        ratios = f"{fastest[first] / fastest[number]:.2f}, {median[first] / median[number]:.2f}"
        sys.stdout.write(f"{number:9}  {fastest[number]:10.3f} s  {median[number]:24.3f} s  {ratios}\n")


if __name__ == "__main__":
    main()
