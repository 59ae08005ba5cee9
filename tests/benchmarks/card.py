"""Whole trainings of real-size models with random weights on a graphics card: `python tests/benchmarks/card.py`.

Everything is what a user's training does, in a process of its own; figures are read from its events.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from trainer.contract.events import Phase, RunFailed, RunFinished, RunStarted, Step, Warned, read_events
from trainer.contract.home import Home
from trainer.contract.settings.config import validated
from trainer.contract.settings.model import Checkpointing
from trainer.contract.wording import for_console
from trainer.runs.folder import RunFolder

WARM_UP = 5  # steps left out of the median


class Case(NamedTuple):
    """One training."""

    family: str
    resolution: int
    precision: str
    checkpointing: Checkpointing
    batch: int
    text: bool = False


CASES = [
    Case("sd15", 512, "fp16", "none", 1),
    Case("sd15", 512, "bf16", "none", 1),
    Case("sd15", 512, "bf16", "full", 4, text=True),
    Case("sd15", 512, "fp32", "none", 1),
    Case("sdxl", 1024, "bf16", "full", 1),
    Case("sdxl", 1024, "fp16", "full", 1, text=True),
    Case("sdxl", 1024, "bf16", "none", 1),
    Case("sdxl", 512, "bf16", "full", 1),
]


def images(folder: Path, count: int, side: int) -> Path:
    """Noise, which no network finds easier than another."""
    folder.mkdir()
    for number in range(count):
        noise = random.Random(number).randbytes(3 * 64 * 64)
        Image.frombytes("RGB", (64, 64), noise).resize((side, side)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"image {number}, noise")
    return folder


def train(case: Case, model: Path, home: Path, device: str, steps: int) -> RunFolder:
    """One training of so many steps, to its end."""
    folder = home / f"images-{case.resolution}"
    if not folder.exists():
        images(folder, 8, case.resolution)
    values: dict[str, dict[str, Any]] = {
        "model": {
            "base_model": str(model),
            "precision": case.precision,
            "device": device,
            "gradient_checkpointing": case.checkpointing,
        },
        "dataset": {
            "images": str(folder),
            "views": max(1, steps * case.batch // 8),
            "batch_size": case.batch,
            "resolution": case.resolution,
        },
        "adapter": {"rank": 16, "text_encoder": case.text, "text_encoder_2": case.text and case.family == "sdxl"},
        "preview": {"steps": 4, "prompts": ["picture"], "every": 1_000_000},
        "output": {"name": "card", "files": 1, "checkpoint_every": 1_000_000},
    }
    run = RunFolder.create(Home(home), validated(values))
    with run.log_file.open("ab") as log:
        subprocess.run([sys.executable, "-m", "trainer", str(run.path)], cwd=ROOT, stdout=log, stderr=log, check=False)
    return run


def told(run: RunFolder, started: float) -> Iterator[str]:
    """What came out, as columns."""
    events = read_events(run.events_file)[0]
    steps = [event for event in events if isinstance(event, Step)]
    failed = next((event for event in events if isinstance(event, RunFailed)), None)
    if failed is not None or not steps:
        yield f"FAILED {for_console(failed.message) if failed else run.log_file.read_text()[-2000:]}"
        return
    yield next(event.device for event in events if isinstance(event, RunStarted))
    yield f"{1 / statistics.median(step.seconds for step in steps[WARM_UP:]):.2f} steps/s"
    yield f"{steps[-1].memory_gib:.2f} GiB at most"
    yield f"first step done after {steps[0].t - started:.1f} s"
    encoded = [event.t for event in events if isinstance(event, Phase) and event.name == "encode"]
    yield f"encoding {encoded[-1] - encoded[0]:.1f} s"
    yield f"loss {steps[0].loss:.4f} to {steps[-1].loss:.4f}"
    yield f"{run.view().loras[-1].bytes / 2**20:.1f} MiB" if run.view().loras else "no file"
    yield next(event.reason for event in events if isinstance(event, RunFinished))
    yield from (f"WARNING {for_console(event.message)}" for event in events if isinstance(event, Warned))


def main() -> None:
    """Print one line per case."""
    import originals

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="The same build with few channels, to try this program.")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--only", default="", help="A family.")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for case in CASES:
            if flags.only not in ("", case.family):
                continue
            model = home / f"{case.family}.safetensors"
            if not model.exists():
                originals.write_file(model, case.family, tiny=flags.tiny)
            started = time.time()
            run = train(case, model, home, flags.device, flags.steps)
            sys.stdout.write(" · ".join([str(tuple(case)), *told(run, started)]) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
