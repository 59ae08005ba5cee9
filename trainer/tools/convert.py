"""`python -m trainer.tools.convert MODEL.ckpt TARGET.safetensors`: a checkpoint's weights as safetensors.

A .ckpt is a pickle, a little program that rebuilds what was saved, and a hostile one does what it likes. It is read by
PyTorch's reader for weights, which knows tensors, numbers, text and lists of them, and stops at anything else.
"""

import os
import struct
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError  # the name of a failure; nothing here unpickles
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from trainer.contract import stops
from trainer.contract.errors import FileExists, TrainerError
from trainer.contract.files import sync_folder
from trainer.contract.system_errors import of_system
from trainer.contract.units import error_lines, shown
from trainer.contract.units import size as in_words
from trainer.models.errors import ConversionRefused, ModelError
from trainer.models.identify import identify

DROPPED = "model_ema."  # the averaged copy of the UNet that some training checkpoints carry along
WRAPPERS = 8  # dictionaries named state_dict within each other that are opened; a pickle can hold itself
SHARED = 2  # times the checkpoint's bytes that its tensors may take, for some of them share memory
WRAPPER = "module."  # put before each name by training on several graphics cards


class _Ignored:
    """Stands for the few harmless classes found beside weights: takes what it is given and does nothing with it."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


# All that reading a damaged checkpoint may raise
DAMAGED = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError, struct.error)
# What Lightning writes into training checkpoints: the name of its callback, and numbers as NumPy keeps them
BESIDE_WEIGHTS: list[Any] = [
    (_Ignored, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"),
    (_Ignored, "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint"),
    (_Ignored, "numpy.core.multiarray.scalar"),
    (_Ignored, "numpy._core.multiarray.scalar"),
    (_Ignored, "numpy.dtype"),
]


def main(arguments: Sequence[str]) -> int:
    """Convert SOURCE to TARGET, and print what was written; 0 on success, 2 on an error the user can act on."""
    source, target = map(Path, arguments)
    try:
        stops.interrupt_once()  # so that no half-written file stays
        convert(source, target)
    except (TrainerError, OSError) as raised:
        error = of_system(raised) if isinstance(raised, OSError) else raised
        sys.stdout.write(f"{error_lines(error.code, error.message, error.hint)}\n")
        return 2
    except KeyboardInterrupt:
        return stops.ENDED_BY_SIGNAL
    sys.stdout.write(f"Written: {shown(str(target))}\n{shown(_what_it_is(target))}\n")
    return 0


def convert(source: Path, target: Path) -> None:
    """Write a checkpoint's weights as safetensors; whole or not at all, and never over another file.

    Raises:
        ConversionRefused: It is no checkpoint, holds more than weights, or holds none.
        FileExists: Something has the target's name.
    """
    if target.suffix != ".safetensors":
        raise ConversionRefused(
            f"{target} does not end in .safetensors.", hint="Programs know the format by that ending."
        )
    if target.exists():
        raise FileExists(path=target)
    tensors = _weights(_read(source), source)
    if not tensors:
        raise ConversionRefused(f"{source} holds no weights.", hint="Choose the checkpoint of a model.")
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        save_file(tensors, part, metadata={"format": "pt"})  # straight from the checkpoint's pages, without a copy
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.chmod(0o644)  # mkstemp's 0600 would hide the file from a shared WebUI folder
        if target.exists():  # made meanwhile
            raise FileExists(path=target)
        part.replace(target)
    except SafetensorError as error:
        raise ConversionRefused(f"{target} cannot be written: {error}.", hint="Free some space on its disk.") from error
    finally:
        part.unlink(missing_ok=True)
    sync_folder(target.parent)


def _what_it_is(path: Path) -> str:
    try:
        return identify(path).sentence()
    except ModelError as error:
        return f"{error.message} {error.hint}"


def _read(path: Path) -> object:
    """What the checkpoint holds, tensors left in the file until they are used.

    Raises:
        ConversionRefused: It is not safe to read, or not to be read at all.
    """
    if not path.is_file():
        raise ConversionRefused(f"No file at {path}.", hint="Give the .ckpt, .pt or .bin file of a model.")
    if not zipfile.is_zipfile(path):
        raise _not_zipped(path)
    try:
        _check_unpacked(path)
        with safe_globals(BESIDE_WEIGHTS):
            more = sorted(get_unsafe_globals_in_checkpoint(str(path)))
            if more:
                raise _holds_more(path, ", ".join(more[:3]))
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UnpicklingError as error:
        raise _holds_more(path, str(error).splitlines()[0]) from error
    except (*DAMAGED, zipfile.BadZipFile) as error:
        raise ConversionRefused(
            f"{path} is no checkpoint that PyTorch can read, or a damaged one: {str(error).splitlines()[0]:.120}.",
            hint="Download or copy it again, until it is whole.",
        ) from error


def _check_unpacked(path: Path) -> None:
    """Let no archive unpack to more than it is: PyTorch packs nothing, so only a bomb does."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(file.file_size for file in archive.infolist())
    if unpacked > path.stat().st_size:
        raise _too_much(path, unpacked)


def _too_much(path: Path, claimed: int) -> ConversionRefused:
    return ConversionRefused(
        f"{path} has {in_words(path.stat().st_size)} and would unpack to {in_words(claimed)}, as no model's does.",
        hint="Get the model as .safetensors, from a source you trust.",
    )


def _holds_more(path: Path, what: str) -> ConversionRefused:
    return ConversionRefused(
        f"{path} holds more than weights: {what}. It could run a program on your computer, so it was not opened.",
        hint="Get the model as .safetensors, from a source you trust.",
    )


def _not_zipped(path: Path) -> ConversionRefused:
    with path.open("rb") as file:
        opening = file.read(2)
    if opening[:1] == b"\x80":  # a bare pickle
        seen = "was saved in the form that PyTorch had before version 1.6, which can only be read by running it"
    else:
        seen = "is no checkpoint"
    return ConversionRefused(f"{path} {seen}.", hint="Get the model as .safetensors; most are offered so.")


def _weights(loaded: object, source: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their model's names, each with memory of its own as safetensors asks.

    Raises:
        ConversionRefused: They would take far more than the checkpoint: a tensor may name the same bytes many times.
    """
    for _ in range(WRAPPERS):
        if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
            loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping):
        return {}
    tensors: dict[str, Tensor] = {}
    owned: set[int] = set()
    named = [(name, value) for name, value in loaded.items() if isinstance(name, str) and _plain(value)]
    claimed = sum(value.nbytes for _, value in named)
    if claimed > SHARED * source.stat().st_size:
        raise _too_much(source, claimed)
    for name, value in named:
        if name.startswith(DROPPED):
            continue
        tensor = value.detach()
        memory = tensor.untyped_storage().data_ptr()
        own = tensor.is_contiguous() and memory not in owned
        owned.add(memory)
        tensors[name.removeprefix(WRAPPER)] = tensor if own else tensor.clone(memory_format=torch.contiguous_format)
    return tensors


def _plain(value: object) -> TypeGuard[Tensor]:
    """Whether this is a tensor of ordinary numbers, as all weights are."""
    return isinstance(value, Tensor) and value.layout == torch.strided and value.is_cpu and not value.is_quantized


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
