"""glibc's heap while weights are loaded: freed memory goes back at once, instead of staying as holes between them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from trainer.contract.process import MEMORY_KEPT

M_MMAP_THRESHOLD = -3  # malloc.h
SMALL = 2**20  # bytes; what is larger gets pages of its own


@contextmanager
def without_holes() -> Iterator[None]:
    """Larger pieces get pages of their own; other C libraries are left as they are.

    Quantizing SDXL left 4 GiB of holes otherwise. Steps are faster with the larger threshold that trainers start with.
    """
    _set(SMALL)
    try:
        yield
    finally:
        _set(int(MEMORY_KEPT["MALLOC_MMAP_THRESHOLD_"]))


def _set(threshold: int) -> None:
    with suppress(OSError, AttributeError, TypeError):  # Windows, macOS, musl
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, threshold)
