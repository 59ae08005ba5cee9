"""The UNet's files read through once while captions are encoded: their numbers are seen before the first image is.

The system then holds the files when they are mapped, and gives that memory up whenever a program wants it.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from trainer.contract.errors import isolated
from trainer.engine.families.original import UNET
from trainer.engine.families.parts import check_finite
from trainer.models.errors import NotNumbers
from trainer.models.headers import read_header

PIECE_BYTES = 8 * 2**20
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_log = logging.getLogger(__name__)


class ReadAhead:
    """A thread that reads the UNet's tensors from `start` on, until they or the block end, and looks for NaN.

    None of our memory is taken but one piece's.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files, self._over = files, Event()
        self._thread = Thread(target=self._read, daemon=True)  # the end of a run does not wait for it
        self._first = Lock()  # taken once and for all by the first to start it: several threads encode
        self._begun = Event()
        self._found: NotNumbers | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()

    def start(self) -> None:
        """Start reading in the background, once."""
        if self._first.acquire(blocking=False):
            self._thread.start()
            self._begun.set()

    def finish(self) -> None:
        """Wait until everything is read.

        Raises:
            NotNumbers: One of the UNet's weights is NaN or infinite.
        """
        self.start()
        self._begun.wait()
        self._thread.join()
        if self._found:
            raise self._found

    def _read(self) -> None:
        with isolated("Reading ahead", lambda _code, message, _hint: _log.warning(message)):
            try:
                for name, numbers in self._pieces():
                    check_finite(numbers, "UNet", name)
            except NotNumbers as found:
                self._found = found

    def _pieces(self) -> Iterator[tuple[str, Tensor]]:
        """The numbers of the UNet's tensors as they lie in its files, by name, `PIECE_BYTES` at most at once."""
        buffer = memoryview(bytearray(PIECE_BYTES))
        for path in self._files:
            header = read_header(path)
            prefix = UNET if header.has(f"^{UNET}") else ""  # a file in the original layout holds other parts, too
            inside = [(entry.begin, name, entry) for name, entry in header.tensors.items() if name.startswith(prefix)]
            with path.open("rb") as file:
                for begin, name, entry in sorted(inside):
                    file.seek(header.data_start + begin)
                    for place in range(begin, entry.end, PIECE_BYTES):
                        if self._over.is_set():
                            return
                        piece = buffer[: min(PIECE_BYTES, entry.end - place)]
                        file.readinto(piece)
                        if entry.dtype in FLOATS:
                            yield name, torch.frombuffer(piece, dtype=FLOATS[entry.dtype])
