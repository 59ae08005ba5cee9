"""Memory and time of 10,000 SDXL-sized cache entries while training: `python tests/benchmarks/data_memory.py`.

Entries are written by the cache's own API from random numbers: 1024 px posteriors in float16 and caption states of two
encoders. Steps of a batch of one read them in random order, as training does, beside a product that takes as long as
it is told to. Pairs of the same steps, once with all entries held in memory and once recalled from the cache, in turn.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from trainer.contract import files
from trainer.engine.data.cache import TensorCache

MIB = 2**20
PAIRS, STEPS = 9, 40
Tensors = dict[str, torch.Tensor]


def entry(kind: str, seed: int) -> Tensors:
    """A posterior of 1024 px, or one caption's states."""
    rng = torch.Generator().manual_seed(seed)
    if kind == "latents":
        return {name: torch.randn(4, 128, 128, generator=rng).half() for name in ("mean", "std")}
    states, pooled = torch.randn(1, 77, 2048, generator=rng), torch.randn(1, 1280, generator=rng)
    return {"states": states.half(), "pooled": pooled.half()}


def own_mib() -> float:
    """Memory of this process that no file backs."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon:"))) / 1024


def take(read: Callable[[str], Tensors], number: int) -> float:
    """What a step does with an entry, without the model."""
    own, states = read(f"latents {number}"), read(f"text {number}")
    return float((own["mean"] * 0.13 + own["std"] * 0.13).sum() + states["states"].sum())


def seconds(read: Callable[[str], Tensors], ahead: Callable[[list[str]], None], order: list[int], work: float) -> float:
    """Seconds of these steps."""
    began = time.perf_counter()
    for place, number in enumerate(order):
        if place + 1 < len(order):
            ahead([f"latents {order[place + 1]}", f"text {order[place + 1]}"])
        take(read, number)
        time.sleep(work)  # the device computes
    return time.perf_counter() - began


def main() -> None:
    """Write the entries, then print memory and the ratio of the pairs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--work", type=float, default=0.1, help="Seconds of a step without reading.")
    parser.add_argument("--folder", default=None)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    files.os.fsync = lambda _handle: None  # type: ignore[assignment] # of the making alone
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        cache = TensorCache(Path(folder) / "sdxl")
        for number in range(asked.entries):
            cache.write(f"latents {number}", entry("latents", number))
            cache.write(f"text {number}", entry("text", -1 - number))
        before, rng = own_mib(), random.Random(0)
        order = rng.sample(range(asked.entries), asked.entries)
        peak = before
        for place, number in enumerate(order):
            cache.read_ahead([f"{kind} {order[place]}" for kind in ("latents", "text")])
            take(cache.recall, number)
            peak = max(peak, own_mib())
        size = sum(path.stat().st_size for path in cache.folder.iterdir()) / MIB
        print(f"{asked.entries} entries of {size:.0f} MiB, all recalled once: +{peak - before:.0f} MiB of memory")  # noqa: T201
        few = rng.sample(range(asked.entries), min(400, asked.entries))
        held = {f"{kind} {number}": entry(kind, number) for number in few for kind in ("latents", "text")}
        ratios = []
        for _ in range(PAIRS):
            steps = rng.sample(few, min(STEPS, len(few)))
            theirs = seconds(held.__getitem__, lambda _keys: None, steps, asked.work)
            fresh = TensorCache(cache.folder)  # nothing in memory
            ratios.append(seconds(fresh.recall, fresh.read_ahead, steps, asked.work) / theirs)
        print(f"steps of {asked.work:g} s: {statistics.median(ratios):.4f}x the time of those held in memory")  # noqa: T201
        print(f"pairs: {', '.join(f'{ratio:.3f}' for ratio in ratios)}; {os.cpu_count()} cores")  # noqa: T201


if __name__ == "__main__":
    main()
