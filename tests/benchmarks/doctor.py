"""What the doctor takes the first time and the second: `python tests/benchmarks/doctor.py`.

Each check is a process of its own, `python launch.py doctor` without what launch.py does before; seconds are those of
the processor, of all its cores together, and those that a person waits. Images are generated: JPEG, WebP and PNG of one
to two megapixels with structure at every scale, in a folder that is deleted afterwards; 3,000 take 2.5 GB.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
SIZES = ((1200, 1600), (1600, 1200), (1024, 1024))
OCTAVES = ((4, 3), (24, 4), (160, 6))  # details along a side, and by what their brightness is divided


def generate(folder: Path, count: int) -> None:
    """Write so many captioned images, none like another."""
    rng = np.random.default_rng(0)
    grain = rng.integers(-14, 15, (2400, 2400, 1), dtype=np.int16)
    for number in range(count):
        width, height = SIZES[number % len(SIZES)]
        top, left = rng.integers(0, 2400 - 1600, 2)
        whole = grain[top : top + height, left : left + width].repeat(3, axis=2)
        for details, share in OCTAVES:
            small = Image.fromarray(rng.integers(0, 256, (details, details, 3), dtype=np.uint8))
            whole += np.asarray(small.resize((width, height), Image.Resampling.BILINEAR), np.int16) // share
        image = Image.fromarray(whole.clip(0, 255).astype(np.uint8))
        path = folder / f"{number:05}"
        if number % 10 == 9:
            image.save(path.with_suffix(".png"), compress_level=1)
        else:
            image.save(path.with_suffix(".webp" if number % 10 == 8 else ".jpg"), quality=88)
        path.with_suffix(".txt").write_text(f"ana, photo {number}, tree, sky")


def check(folder: Path, home: Path) -> str:
    """Check the folder once; returns seconds, peak memory, and what was kept."""
    command = [sys.executable, "-m", "trainer.console.main", "doctor", folder, "--preset", "sd15-style", "--home", home]
    before, since = os.times(), time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
    waited, after = time.perf_counter() - since, os.times()
    processor = sum(after[2:4]) - sum(before[2:4])
    kept = sum(file.stat().st_size for file in (home / "cache" / "doctor").glob("*.entry"))
    return f"{processor:.1f} s of the processor, {waited:.1f} s waited, {kept / 1e6:.0f} MB kept"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--images", type=Path, help="A folder of your own images, which are only read.")
    wished = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        images = wished.images or Path(made) / "images"
        if not wished.images:
            images.mkdir()
            generate(images, wished.count)
        for turn in ("first", "second"):
            sys.stdout.write(f"{turn} time: {check(images, Path(made) / 'home')}\n")
