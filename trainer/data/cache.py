"""Encode once: VAE posteriors and text states on disk, keyed by everything they depend on.

A key is the digest of the picture's bytes, its crop, the encoder's weights and dtype, so nothing goes stale: a
changed file, size, model or number format is another entry. The user's folder is never written to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from trainer.contract.home import atomic_write


@cache
def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def module_digest(module: nn.Module) -> str:
    """One digest of a frozen module's weights, wherever they came from and however they lie in memory."""
    seen = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        seen.update(f"{name} {dtype_name(tensor.dtype)} {tuple(tensor.shape)}".encode())
        seen.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return seen.hexdigest()


def digest(*parts: object) -> str:
    """SHA-256 over the parts' text, hex."""
    return hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()


class TensorCache:
    """A folder of small safetensors files by key; damaged entries are made again."""

    def __init__(self, folder: Path, writes: bool = True, missed: Callable[[], None] = lambda: None) -> None:
        self.folder = folder
        self.writes = writes  # one process of several does
        self._missed = missed  # told of everything that is to be made

    def get(self, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors under `key`, made and stored if they are not there yet."""
        path = self.folder / f"{key}.safetensors"
        if path.exists():
            try:
                return load_file(path)
            except SafetensorError:
                path.unlink(missing_ok=True)
        self._missed()
        made = {name: tensor.detach().cpu().contiguous() for name, tensor in make().items()}
        if self.writes:
            atomic_write(path, save(made))
        return made


def dtype_name(dtype: torch.dtype) -> str:
    """A dtype's short name for keys."""
    return str(dtype).removeprefix("torch.")
