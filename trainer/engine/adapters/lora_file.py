"""The LoRA file: kohya names, one alpha, metadata, hashes; written whole, then verified by reading it back.

Our own writer, because diffusers' converter writes another alpha and text-encoder names that no client knows
(ADR 2).
"""

import hashlib
import json
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor

from trainer.contract.errors import FileExists, ProofFailed
from trainer.contract.files import atomic_write, sync_folder
from trainer.engine.adapters.lora import Adapter, LiveLayer
from trainer.engine.device import DTYPES
from trainer.engine.families.base import ExportLabels
from trainer.models.errors import LoraRefused
from trainer.models.lora_header import placed_layers
from trainer.models.lora_layers import LoraFile
from trainer.models.lora_names import Component

# Largest error of an exported update relative to the live one: rounding to the file's format, with some room
TOLERANCE = {"fp32": 1e-5, "fp16": 2e-3, "bf16": 1.6e-2}
LEAVES = ("alpha", "lora_down.weight", "lora_up.weight")


@dataclass(frozen=True)
class Exported:
    """The finished file: path, size, and SHA-256 of the whole file (hex)."""

    path: Path
    bytes: int
    sha256: str


def export(path: Path, adapter: Adapter, dtype: str, metadata: Mapping[str, str]) -> Exported:
    """Write and verify one LoRA file.

    Args:
        path: A file that must not exist yet.
        adapter: The live layers.
        dtype: fp16, bf16 or fp32 for the weights; alpha is always fp32.
        metadata: Strings for the header; hashes are added here.

    Raises:
        FileExists: `path` is there already; outputs are never overwritten.
        ProofFailed: What was written is not what was trained; the file is not kept.
    """
    data = serialise(file_tensors(adapter, DTYPES[dtype]), metadata)
    proof = path.with_name(f".{path.name}.proof")
    try:
        atomic_write(proof, data)
        verify(proof, adapter, dtype)
        _publish(proof, path)
    finally:
        proof.unlink(missing_ok=True)
    return _exported(path, data)


def known(path: Path) -> Exported:
    """A file that `export` has finished."""
    return _exported(path, path.read_bytes())


def _exported(path: Path, data: bytes) -> Exported:
    return Exported(path, len(data), hashlib.sha256(data).hexdigest())


def _publish(verified: Path, path: Path) -> None:
    """Rename a verified file to its final name, unless that exists."""
    if path.exists():
        raise FileExists(path=path)
    verified.replace(path)
    sync_folder(path.parent)


def file_tensors(adapter: Adapter, dtype: torch.dtype) -> dict[str, Tensor]:
    """The file's tensors: down, up and alpha per layer, contiguous, on the CPU.

    Every layer gets the adapter's one alpha, since diffusers misreads mixed ones; where peft's scaling differs
    (rank-stabilised, per-layer patterns) the difference is folded into `up` in float32.
    """
    made: dict[str, Tensor] = {}
    for name, live in adapter.layers.items():
        rank = live.down.shape[0]
        fold = live.scaling * rank / adapter.alpha
        made[f"{name}.alpha"] = torch.tensor(adapter.alpha, dtype=torch.float32)
        made[f"{name}.lora_down.weight"] = live.down.detach().cpu().to(dtype).contiguous()
        made[f"{name}.lora_up.weight"] = (live.up.detach().cpu().float() * fold).to(dtype).contiguous()
    return made


def serialise(tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The file's bytes, with the hash of everything after the header as Civitai and WebUIs compute it (AutoV3)."""
    body = body_hash(save(tensors))
    hashes = {"sshs_model_hash": body, "modelspec.hash_sha256": f"0x{body}"}
    return bytes(save(tensors, {**metadata, **hashes}))


def body_hash(data: bytes) -> str:
    """SHA-256, hex, of a safetensors file's bytes after its header."""
    (header_bytes,) = struct.unpack("<Q", data[:8])
    return hashlib.sha256(data[8 + header_bytes :]).hexdigest()


def verify(path: Path, adapter: Adapter, dtype: str) -> None:
    """Read the file back and compare its names, shapes, strength and hash with the live adapter.

    Raises:
        ProofFailed: Naming the first thing that differs.
    """
    data = path.read_bytes()
    tensors = load(data)
    expected = {f"{name}.{leaf}" for name in adapter.layers for leaf in LEAVES}
    if tensors.keys() != expected:
        odd = sorted(tensors.keys() ^ expected)
        raise ProofFailed(problem=f"{len(odd)} tensors differ from the architecture's key table, first {odd[0]}")
    (header_bytes,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + header_bytes])
    if header.get("__metadata__", {}).get("sshs_model_hash") != body_hash(data):
        raise ProofFailed(problem="its sshs_model_hash is not the hash of its tensors")
    for name, live in adapter.layers.items():
        _verify_layer(name, live, tensors, TOLERANCE[dtype])


def _verify_layer(name: str, live: LiveLayer, tensors: dict[str, Tensor], tolerance: float) -> None:
    down, up = tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"]
    if not (down.isfinite().all() and up.isfinite().all()):
        raise ProofFailed(problem=f"{name} holds values that are not finite")
    written = client_delta(down, up, tensors[f"{name}.alpha"])
    if written.shape != live.slot.shape:
        raise ProofFailed(problem=f"{name} updates a weight of shape {tuple(written.shape)}, not {live.slot.shape}")
    trained = live.delta().cpu()
    size, error = float(trained.norm()), float((written - trained).norm())
    if error > tolerance * size + _grain(down, up, live.scaling) + 1e-7:
        raise ProofFailed(problem=f"the update of {name} is off by {error / max(size, 1e-12):.1%} of its size")


def _grain(down: Tensor, up: Tensor, scaling: float) -> float:
    """Rounding error of the product that is no fault: half the spacing of the format's smallest numbers.

    After the first steps `up` holds values near 1e-6, where float16 has a spacing of 6e-8.
    """
    info = torch.finfo(up.dtype)
    half = float(info.smallest_normal * info.eps / 2)
    norms = up.numel() ** 0.5 * float(down.float().norm()) + down.numel() ** 0.5 * float(up.float().norm())
    return float(scaling * half * norms)


def client_delta(down: Tensor, up: Tensor, alpha: Tensor) -> Tensor:
    """The weight update every client computes: alpha / rank * up @ down, float32, in the base weight's shape."""
    rank = down.shape[0]
    product = up.float().flatten(1) @ down.float().flatten(1)
    return (float(alpha) / rank * product).reshape(up.shape[0], *down.shape[1:])


@torch.no_grad()
def put_into(adapter: Adapter, file: LoraFile, kohya_name: Callable[[Component, str], str]) -> list[str]:
    """Give the adapter a LoRA file's weights, so that its updates are those that a client computes from the file.

    Args:
        adapter: The live layers.
        file: What to read.
        kohya_name: How the base model's family calls a layer, from its component and path.

    Returns:
        Layers that the file has no weights for; they stay as they are.

    Raises:
        LoraRefused: It cannot be read, does not fit the layers, or holds NaN or infinity.
    """
    if file.rank != adapter.rank:
        raise LoraRefused(file.path, f"has rank {file.rank}, the layers here {adapter.rank}")
    placed = placed_layers(file, {name: live.slot for name, live in adapter.layers.items()}, kohya_name)
    try:
        tensors = load_file(file.path)
    except (OSError, SafetensorError) as error:
        raise LoraRefused(file.path, f"cannot be read: {error}") from error
    for name, layer in placed.items():
        live = adapter.layers[name]
        down, up = (tensors[tensor].float() for tensor in (layer.down, layer.up))
        if not (down.isfinite().all() and up.isfinite().all()):
            raise LoraRefused(file.path, f"is damaged: it holds NaN or infinity in {name}")
        live.down.copy_(down.reshape(live.down.shape))
        live.up.copy_((up * (layer.alpha / layer.rank / live.scaling)).reshape(live.up.shape))
    return [name for name in adapter.layers if name not in placed]


def sidecar(path: Path, trigger_word: str, labels: ExportLabels) -> None:
    """Write `X.json` beside X.safetensors, which WebUIs show on the LoRA's card."""
    content = {
        "description": labels.note,
        "sd version": labels.client_version,
        "activation text": trigger_word,
        "preferred weight": 0.0,
        "notes": "",
    }
    atomic_write(
        path.with_suffix(".json"), json.dumps(content, indent=2, ensure_ascii=False).encode() + os.linesep.encode()
    )
