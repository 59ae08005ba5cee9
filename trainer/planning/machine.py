"""What there is to compute on, found out without loading PyTorch: which device, its free memory, its number format."""

import platform
import shutil
import subprocess
import time
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import psutil

from trainer.contract.settings.model import ModelSettings

Device = Literal["cuda", "mps", "cpu"]
MIB = 2**20
FRESH_SECONDS = 5.0
ANSWER_SECONDS = 5.0
SHARED_BY_APPLE = 0.7  # of a Mac's memory, what its graphics may take
HALF_ON_CPU = {"avx512_bf16", "amx_bf16"}  # without them bf16 is slower than float32


@dataclass(frozen=True)
class Machine:
    """Where a training would run: the device, bytes that are free there, and whether it computes in half precision."""

    device: Device
    free: int
    half: bool


_seen: dict[str, tuple[float, Machine]] = {}


def machine_for(settings: ModelSettings) -> Machine:
    """What these settings would compute on; a few seconds old at most.

    The trainer sees more, and has the last word: here only files and the driver's own tool are asked.
    """
    wanted = settings.device
    if wanted not in _seen or time.monotonic() - _seen[wanted][0] > FRESH_SECONDS:
        _seen[wanted] = time.monotonic(), _look(wanted)
    seen = _seen[wanted][1]
    half = seen.half if settings.precision == "auto" else settings.precision != "fp32"
    return Machine(seen.device, seen.free, half)


def _look(wanted: str) -> Machine:
    if wanted in ("auto", "cuda"):
        free = _free_on_nvidia() or _free_on_amd()
        if free is not None and _torch_build() != "cpu":
            return Machine("cuda", free, half=True)
    if wanted in ("auto", "mps") and platform.system() == "Darwin" and platform.machine() == "arm64":
        return Machine("mps", round(psutil.virtual_memory().available * SHARED_BY_APPLE), half=True)
    return Machine("cpu", psutil.virtual_memory().available, half=bool(HALF_ON_CPU & _cpu_features()))


@cache
def _torch_build() -> str:
    """What PyTorch was built for, by its version: cpu, cu130, rocm7.0; empty where it does not say."""
    try:
        return version("torch").partition("+")[2]
    except PackageNotFoundError:
        return ""


def _free_on_nvidia() -> int | None:
    """Bytes free on the first card, by its driver's tool; None without."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=memory.free", "--format=csv,noheader,nounits", "--id=0"]
    try:
        answer = subprocess.run(  # noqa: S603 - an argument list, no shell
            query, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=True
        )
        return int(answer.stdout.split()[0]) * MIB
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def _free_on_amd(cards: Path = Path("/sys/class/drm")) -> int | None:
    """Bytes free on the card with the most memory, by the kernel's files; None without."""
    found = []
    for whole in cards.glob("card*/device/mem_info_vram_total"):
        try:
            total, used = (int(path.read_text()) for path in (whole, whole.with_name("mem_info_vram_used")))
        except (OSError, ValueError):
            continue
        found.append((total, total - used))
    return max(found)[1] if found else None


@cache
def _cpu_features() -> frozenset[str]:
    """The processor's features as Linux names them; none where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), []))
