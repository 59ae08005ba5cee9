"""Digests of weights and values, and names of number formats."""

import hashlib

import torch
from torch import nn


def module_digest(module: nn.Module) -> str:
    """One digest of a frozen module's weights, wherever they came from and however they lie in memory."""
    seen = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        seen.update(f"{name} {dtype_name(tensor.dtype)} {tuple(tensor.shape)}".encode())
        seen.update(tensor.detach().clone().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return seen.hexdigest()


def digest(*parts: object) -> str:
    """SHA-256 over the parts' text, hex."""
    return hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()


def dtype_name(dtype: torch.dtype) -> str:
    """A dtype's short name for keys."""
    return str(dtype).removeprefix("torch.")
