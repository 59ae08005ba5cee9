"""What saving one caption takes on the Dataset page: `python tests/benchmarks/caption_save.py`.

It makes folders of 1,000 and 10,000 images with captions, opens each as the page does, and prints the seconds of a
caption saved, of the next one while all captions are changed already, of the saves undone, of one tag added to all, and
what a question of the page takes when nothing changed. With `--checkout DIR` it measures another checkout.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[2]
COUNTS = (1_000, 10_000)
WORDS = [
    "a bear",
    "forest",
    "river",
    "mountain",
    "evening light",
    "standing",
    "looking at viewer",
    "outdoors",
    "fog",
    "portrait",
]


def make(folder: Path, count: int) -> None:
    """Images in folders of a thousand, each with a caption of its own."""
    from PIL import Image

    for number in range(count):
        place = folder / f"{number // 1000:03}"
        place.mkdir(parents=True, exist_ok=True)
        file = place / f"{number:06}.png"
        Image.new("RGB", (64, 64), (number % 256, number // 256, 9)).save(file)
        tags = WORDS[number % 5 :: 1 + number % 3]
        file.with_suffix(".txt").write_text(f"{', '.join(tags)}, number {number}", encoding="utf-8")


def measure(folder: Path, home_of: Path, repeats: int) -> None:
    """Print the figures of one folder, in a process of its own."""
    from app.dataset.grid import answers
    from trainer.contract.home import Home

    asks = {function.__name__: function for function in answers(Home(home_of))}
    request = SimpleNamespace(headers={})

    def ask(what: str, **question: object) -> dict[str, object]:
        answer = asks[what]({"folder": str(folder), **question}, request)
        assert "error" not in answer, answer
        return answer

    def timed(act: Callable[[int], object], times: int = repeats) -> str:
        taken = []
        for number in range(times):
            begun = time.perf_counter()
            act(number)
            taken.append(time.perf_counter() - begun)
        return f"{statistics.median(taken):.2f} s"

    names = ask("show")["names"]
    assert isinstance(names, list)
    shown = names[:24]

    def save(number: int) -> None:
        name = names[number * len(names) // repeats]
        ask("save", name=name, caption=f"changed {time.time_ns()}", shown=shown)

    parts = {"a question without news": timed(lambda _: ask("show", shown=shown)), "a caption saved": timed(save)}
    parts["undone"] = timed(lambda _: ask("take_back", shown=shown))
    add = {"kind": "add", "put": "an added tag"}
    parts["a tag added to all"] = timed(lambda _: ask("bulk", names=names, edit=add, shown=shown), 1)
    parts["a caption saved where all are changed"] = timed(save)
    sys.stdout.write(f"{len(names)} images: {'; '.join(f'{what} {seconds}' for what, seconds in parts.items())}\n")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkout", type=Path, default=ROOT, help="Whose page is measured.")
    parser.add_argument("--repeats", type=int, default=5, help="How often each thing is done; the median is printed.")
    parser.add_argument("--part", nargs=2, type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.part:
        measure(*flags.part, flags.repeats)
        return
    environment = {**os.environ, "PYTHONPATH": str(flags.checkout)}
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as made:
            make(Path(made) / "pictures", count)
            command = [sys.executable, __file__, "--part", f"{made}/pictures", f"{made}/home"]
            command += ["--repeats", str(flags.repeats)]
            subprocess.run(command, env=environment, cwd=flags.checkout, check=True)


if __name__ == "__main__":
    main()
