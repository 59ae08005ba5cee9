"""Encode once: VAE posteriors, masks and text states on disk, keyed by everything they depend on.

A key is the digest of the image's bytes, its crop, the encoder's weights and dtype, so nothing goes stale: a
changed file, size, model or number format is another entry. How images are put together in batches is no part of it:
that changes the last bits of a posterior, as another processor does. The user's folder is never written to.
"""

import hashlib
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from trainer.contract.files import atomic_write
from trainer.contract.ours import NotOurs, check, read_plain
from trainer.planning.memory import GIB

OURS = re.compile(r"[0-9a-f]{64}\.(entry|png)")  # all that is ever deleted here is called so
CHECKSUM_BYTES = 32  # SHA-256 of the rest of an entry, in front of it


class TensorCache:
    """A folder of small files by key, each with its checksum; damaged entries are made again.

    Reading an entry is noted as its file's time, so that what lies unused longest is known. Threads may share it.
    """

    def __init__(self, folder: Path, writes: bool = True, missed: Callable[[], None] = lambda: None) -> None:
        check(folder, folder=True)
        self.folder = folder
        self.writes = writes  # one process of several does
        self._missed = missed  # called for everything that is not there
        self.used: set[Path] = set()

    def get(self, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors under `key`, made and stored if they are not there yet."""
        stored = self.read(key)
        return self.write(key, make()) if stored is None else stored

    def read(self, key: str) -> dict[str, Tensor] | None:
        """The tensors under `key`, if they are there and whole."""
        path = self._path(key)
        try:
            entry = read_plain(path)
            whole = hashlib.sha256(entry[CHECKSUM_BYTES:]).digest() == entry[:CHECKSUM_BYTES]
            tensors = load(entry[CHECKSUM_BYTES:]) if whole else None
        except (FileNotFoundError, SafetensorError):
            tensors = None
        if tensors is None:
            self._missed()
            return None
        self.note(path)
        return tensors

    def write(self, key: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Store tensors under `key`; returns them as they will be read."""
        made = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        if self.writes:
            data, path = save(made), self._path(key)
            atomic_write(path, hashlib.sha256(data).digest() + data)
            self.used.add(path)
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


def _seen(path: Path) -> tuple[int, int] | None:
    """When a file was used last, in ns, and its bytes; None if it is gone, or no plain file."""
    try:
        check(path)
        found = path.lstat()
    except (FileNotFoundError, NotOurs):
        return None
    return found.st_mtime_ns, found.st_size
