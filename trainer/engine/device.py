"""Where and in which number format to compute; memory readings."""

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from trainer.contract.errors import InvalidSettings
from trainer.contract.settings.model import ModelSettings
from trainer.contract.wording import named, setting

DTYPES: Mapping[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MIXED_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
# How long processes wait for each other: one encodes ten thousand images for all. One that dies is noticed at once.
PATIENCE = timedelta(days=7)


def choose_device(wanted: str) -> str:
    """The device type to compute on: the user's choice, else the best there is.

    Raises:
        InvalidSettings: The chosen one is not in this machine.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(kind for kind, here in present.items() if here)
    if not present[wanted]:
        raise InvalidSettings(
            f"{named('model.device')} = {wanted}, but this machine has none that PyTorch {torch.__version__} can use.",
            hint=f"Set {setting('model.device', 'auto')}.",
        )
    return wanted


def choose_precision(wanted: str, device: str) -> str:
    """fp32, bf16 or fp16: the user's choice, else the fastest safe one of the device.

    Raises:
        InvalidSettings: fp16 on a CPU, which cannot scale gradients.
    """
    if wanted == "fp16" and device == "cpu":
        raise InvalidSettings(
            f"{named('model.precision')} = fp16 needs a graphics card.",
            hint=f"Set {setting('model.precision', 'bf16')} or {setting('model.precision', 'fp32')}.",
        )
    if wanted != "auto":
        return wanted
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"  # Turing, Pascal
    if device == "mps":
        return "bf16" if torch.backends.mps.is_macos_or_newer(14, 0) else "fp32"
    if device == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return "bf16"
    return "fp32"


def make_accelerator(settings: ModelSettings) -> tuple[Accelerator, torch.dtype]:
    """accelerate's handle on device, autocast, gradient scaling, clipping and process group; and the working dtype."""
    device = choose_device(settings.device)
    precision = choose_precision(settings.precision, device)
    accelerator = Accelerator(
        mixed_precision=MIXED_PRECISION[precision],
        cpu=device == "cpu",
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    return accelerator, DTYPES[precision]


def free_bytes(device: torch.device) -> int:
    """Memory of the device that nobody uses now; of a computer's own this process's share."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return int(psutil.virtual_memory().available) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def out_of_memory(error: BaseException) -> str:
    """What an error says of memory that has run out; empty if it is about something else."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return str(error).split(". ")[0] or type(error).__name__
    # How PyTorch's CPU allocator says it, and CUDA or HIP when system memory cannot be pinned
    said = ("not enough memory", " error: out of memory")
    return str(error).splitlines()[0] if any(words in str(error) for words in said) else ""


def memory_gib(device: torch.device) -> float:
    """Peak memory on a CUDA device, else this process's private memory now, in GiB.

    On Linux RssAnon is read: memory-mapped weights count as resident but can be dropped at any time.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 2**20
    return float(psutil.Process(os.getpid()).memory_info().rss) / 2**30
