"""A base model's files read through once in passing, so that the system holds them when they are mapped."""

import logging
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Self

import psutil

from trainer.contract.errors import isolated

PIECE_BYTES = 8 * 2**20
_log = logging.getLogger(__name__)


class ReadAhead:
    """A thread that reads files into the system's page cache: from `start` on, until they or the block end.

    The system gives such memory up whenever a program wants it, so none of ours is taken but one piece's.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files, self._over = files, Event()
        self._thread = Thread(target=self._read, daemon=True)  # the end of a run does not wait for it
        self._first = Lock()  # taken once and for all by the first to start it: several threads encode

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

    def _read(self) -> None:
        with isolated("Reading ahead", lambda _code, message, _hint: _log.warning(message)):
            if sum(file.stat().st_size for file in self._files) > psutil.virtual_memory().available:
                return
            piece = bytearray(PIECE_BYTES)
            for path in self._files:
                with path.open("rb", buffering=0) as file:
                    while not self._over.is_set() and file.readinto(piece):
                        pass
