"""How fast images are encoded, against one by one: `python tests/benchmarks/encoding.py`.

One by one: each image is read for its digest and again to be decoded in full, scaled, encoded alone, and its entry is
written before the next is begun. Ours: `encode_dataset`. Both take turns over the same generated JPEGs with empty
caches; the ratio of medians is what counts. How far posteriors differ is told, too.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from trainer.contract.files import atomic_write
from trainer.contract.home import POCKET
from trainer.contract.settings.config import validated
from trainer.contract.settings.dataset import DatasetSettings
from trainer.dataset.scan import scan
from trainer.engine.data.batches import choose_cuts, encode_dataset
from trainer.engine.data.cache import TensorCache
from trainer.engine.digests import digest
from trainer.engine.families.load import load_family


def photographs(folder: Path, count: int, side: int) -> None:
    """JPEGs with structure at every scale, as photographs have it."""
    rng = np.random.default_rng(0)
    for number in range(count):
        size = (side, side * 3 // 4) if number % 3 else (side * 3 // 4, side)
        whole = np.zeros((size[1], size[0], 3))
        for octave in range(3, 11):
            small = Image.fromarray(rng.integers(0, 256, (2**octave, 2**octave, 3), dtype=np.uint8))
            whole += np.asarray(small.resize(size, Image.Resampling.BICUBIC), float) / 2 ** (octave - 2)
        whole = (whole - whole.min()) / np.ptp(whole) * 255
        Image.fromarray(whole.astype(np.uint8)).save(folder / f"{number}.jpg", quality=90)


def one_by_one(family, items, settings: DatasetSettings, folder: Path) -> list[torch.Tensor]:
    """The plain way."""
    means = []
    for cut in choose_cuts(items, family, settings):
        key = digest(hashlib.sha256(cut.item.path.read_bytes()).hexdigest(), cut.crop)
        crop = cut.crop
        with Image.open(cut.item.path) as file:
            scaled = file.convert("RGB").resize(crop.scaled, Image.Resampling.LANCZOS)
        shown = scaled.crop((crop.left, crop.top, crop.left + crop.bucket.width, crop.top + crop.bucket.height))
        pixels = torch.from_numpy(np.array(shown)).permute(2, 0, 1).float().div(127.5).sub(1)
        posterior = family.encode_image(pixels.unsqueeze(0))
        atomic_write(folder / key, save({"mean": posterior.mean[0].contiguous(), "std": posterior.std[0].contiguous()}))
        means.append(posterior.mean[0])
    return means


def measure(base_model: str, count: int, side: int, resolution: int, rounds: int) -> None:
    """Print images per second and the ratio."""
    config = validated({"model": {"base_model": base_model}})
    family = load_family(config, torch.device("cpu"), torch.float32)
    settings = DatasetSettings(resolution=resolution)
    seconds: dict[str, list[float]] = {"one": [], "ours": []}
    with tempfile.TemporaryDirectory() as made:
        images = Path(made) / "pictures"
        images.mkdir()
        photographs(images, count, side)
        items, _ = scan(images)
        for turn in range(rounds + 1):  # the first warms up
            since = time.perf_counter()
            plain = one_by_one(family, items, settings, Path(made) / f"one{turn}")
            seconds["one"].append(time.perf_counter() - since)
            cache = TensorCache(Path(made) / f"ours{turn}")
            since = time.perf_counter()
            data = encode_dataset(
                items, family, settings, dtype=torch.float32, cache=cache, progress=lambda _done, _total: None
            )
            seconds["ours"].append(time.perf_counter() - since)
    one, ours = (statistics.median(values[1:]) for values in seconds.values())
    scaled = [data.posteriors[number, False].mean / family.scaling_factor for number in range(len(plain))]
    differ = max(float((a - b).abs().max() / b.std()) for a, b in zip(scaled, plain, strict=True))
    sys.stdout.write(
        f"{count} JPEGs of {side} px at {resolution} px, {torch.get_num_threads()} threads in torch: one by one "
        f"{count / one:.1f} a second, ours {count / ours:.1f}: {one / ours:.2f}x; means differ by up to {differ:.3f} "
        "of their spread\n"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-model", default=str(POCKET))
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--side", type=int, default=1600)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    wished = parser.parse_args()
    measure(wished.base_model, wished.count, wished.side, wished.resolution, wished.rounds)
