"""glibc's heap where memory counts more than time: freed pieces go back at once, instead of staying as holes.

So it is while weights are loaded, and for good where a training had to be made to fit. Otherwise a step's memory is
kept for the next one, which is faster (`MEMORY_KEPT`). Other C libraries are left as they are.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from trainer.runs.process import MEMORY_KEPT

M_MMAP_THRESHOLD = -3  # malloc.h
SMALL = 2**20  # bytes; what is larger gets pages of its own
_thresholds = [int(MEMORY_KEPT["MALLOC_MMAP_THRESHOLD_"])]  # the last one applies; trainers start with this one


@contextmanager
def without_holes() -> Iterator[None]:
    """Larger pieces get pages of their own: quantizing SDXL left 4 GiB of holes otherwise."""
    keep_little()
    try:
        yield
    finally:
        _thresholds.pop()
        _apply()


def keep_little() -> None:
    """From now on larger pieces get pages of their own, which costs time at each."""
    _thresholds.append(SMALL)
    _apply()


def _apply() -> None:
    with suppress(OSError, AttributeError, TypeError):  # Windows, macOS, musl
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, _thresholds[-1])
