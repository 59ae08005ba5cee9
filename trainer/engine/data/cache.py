"""Encode once: VAE posteriors, masks and text states on disk, keyed by everything they depend on.

A key is the digest of the image's bytes, its crop, the encoder's weights and dtype, so nothing goes stale: a
changed file, size, model or number format is another entry. How images are put together in batches is no part of it:
that changes the last bits of a posterior, as another processor does. The user's folder is never written to.
"""

import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from trainer.contract.files import atomic_write
from trainer.contract.ours import NotOurs, check, read_plain
from trainer.engine.errors import EntryGone
from trainer.planning.memory import GIB, MIB

OURS = re.compile(r"[0-9a-f]{64}\.(entry|png)")  # all that is ever deleted here is called so
KEPT_BYTES = 256 * MIB  # of entries that steps have read: all of a small data set, so that it costs no reading
CHECKSUM_BYTES = 32  # SHA-256 of the rest of an entry, in front of it


class TensorCache:
    """A folder of small files by key, each with its checksum; damaged entries are made again.

    Reading an entry is noted as its file's time, so that what lies unused longest is known. Threads may share it, but
    for `recall` and `read_ahead`, which are the training loop's.
    """

    def __init__(self, folder: Path, writes: bool = True, missed: Callable[[], None] = lambda: None) -> None:
        check(folder, folder=True)
        self.folder = folder
        self.writes = writes  # one process of several does
        self._missed = missed  # called for everything that is not there
        self.used: set[Path] = set()
        self._unwritten: dict[str, dict[str, Tensor]] = {}  # what this process made and may not write
        self._recent: OrderedDict[str, dict[str, Tensor]] = OrderedDict()  # what was recalled last comes last
        self._recent_bytes = 0
        self._coming: dict[str, Future[dict[str, Tensor] | None]] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="cache")

    def get(self, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors under `key`, made and stored if they are not there yet."""
        stored = self.read(key)
        return self.write(key, make()) if stored is None else stored

    def read(self, key: str) -> dict[str, Tensor] | None:
        """The tensors under `key`, if they are there and whole."""
        tensors = self._stored(key)
        if tensors is None:
            self._missed()
        return tensors

    def recall(self, key: str) -> dict[str, Tensor]:
        """The tensors under a key that was read or written before; those of the newest are still in memory.

        Raises:
            EntryGone: Somebody has deleted or damaged the file since.
        """
        tensors = self._recent.pop(key, None)
        if tensors is None:
            coming = self._coming.pop(key, None)
            tensors = coming.result() if coming else self._stored(key)
            if tensors is None:
                raise EntryGone(file=self._path(key))
            self._recent_bytes += _bytes(tensors)
        self._recent[key] = tensors
        while self._recent_bytes > KEPT_BYTES and len(self._recent) > 1:
            self._recent_bytes -= _bytes(self._recent.popitem(last=False)[1])
        return tensors

    def read_ahead(self, keys: Iterable[str]) -> None:
        """Begin to read what is recalled next, while the device computes."""
        for key in keys:
            if key not in self._recent and key not in self._coming:
                self._coming[key] = self._reader.submit(self._stored, key)

    def _stored(self, key: str) -> dict[str, Tensor] | None:
        if key in self._unwritten:
            return self._unwritten[key]
        path = self._path(key)
        try:
            entry = memoryview(read_plain(path))
            whole = hashlib.sha256(entry[CHECKSUM_BYTES:]).digest() == entry[:CHECKSUM_BYTES]
            tensors = load(entry[CHECKSUM_BYTES:].tobytes()) if whole else None
        except (FileNotFoundError, SafetensorError):
            tensors = None
        if tensors is not None:
            self.note(path)
        return tensors

    def write(self, key: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Store tensors under `key`; returns them as they will be read."""
        made = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        if self.writes:
            data, path = save(made), self._path(key)
            atomic_write(path, hashlib.sha256(data).digest() + data)
            self.used.add(path)
        else:
            self._unwritten[key] = made
        return made

    def note(self, path: Path) -> None:
        """Remember that a file below the cache is used now."""
        self.used.add(path)
        with suppress(OSError):  # it is another user's, or on a disk that cannot be written to
            os.utime(path)

    def trim(self, limit_gib: float) -> None:
        """Delete what all caches beside this one hold beyond the limit, what lay unused longest first.

        What was used here stays, however much it is, and what is not named as an entry.
        """
        if not self.writes or limit_gib == 0:
            return
        found = [path for path in self.folder.parent.rglob("*") if OURS.fullmatch(path.name)]
        sizes = {path: seen for path in found if (seen := _seen(path)) is not None}
        spare = sum(size for _, size in sizes.values()) - limit_gib * GIB
        for path, (_, size) in sorted(sizes.items(), key=lambda one: one[1]):
            if spare <= 0:
                return
            if path not in self.used:
                with suppress(OSError):  # somebody else has deleted it, or reads it, on Windows
                    path.unlink()
                    spare -= size

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.entry"


def _bytes(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _seen(path: Path) -> tuple[int, int] | None:
    """When a file was used last, in ns, and its bytes; None if it is gone, or no plain file."""
    try:
        check(path)
        found = path.lstat()
    except (FileNotFoundError, NotOurs):
        return None
    return found.st_mtime_ns, found.st_size
