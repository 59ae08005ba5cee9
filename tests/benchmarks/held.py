"""What holding a frozen weight in 8 or 4 bits costs: `python tests/benchmarks/held.py`, one thread, bf16.

Prints error, bytes, milliseconds to quantize and to make dense again, and those of the product with 1024 rows.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import get_args

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[2]))

from trainer.contract.settings.model import Quantize
from trainer.engine.frozen.quantized import QuantizedWeight, quantize_weight

SHAPES = ((1280, 1280), (10240, 1280))


def milliseconds(work: Callable[[], object]) -> float:
    """The least of 15 times: others use this machine too."""
    work()
    times = []
    for _ in range(15):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times) * 1000


def figures(weight: torch.Tensor, bits: Quantize) -> str:
    """Those of one weight in so many bits."""
    held = quantize_weight(weight, bits)
    assert isinstance(held, QuantizedWeight)
    error = (held.dense().float() - weight.float()).norm() / weight.float().norm()
    size = (held.codes.nbytes + held.scales.nbytes) / weight.numel()
    taken, made = milliseconds(partial(quantize_weight, weight, bits)), milliseconds(held.dense)
    return f"{bits}: error {error:.2%}, {size:.3f} bytes a weight, quantized in {taken:.1f} ms, dense in {made:.1f} ms"


def main() -> None:
    """Print them."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for shape in SHAPES:
        weight, rows = (torch.randn(shape) * 0.03).bfloat16(), torch.randn(1024, shape[1]).bfloat16()
        print(f"{shape[0]} x {shape[1]}: product {milliseconds(partial(F.linear, rows, weight)):.1f} ms")  # noqa: T201
        for bits in get_args(Quantize)[1:]:  # without "none"
            print(f"  {figures(weight, bits)}")  # noqa: T201


if __name__ == "__main__":
    main()
