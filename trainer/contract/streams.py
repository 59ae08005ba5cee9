"""Standard input, output and error, which may be closed, gone, or never have been there."""

import os
import sys
from contextlib import suppress
from typing import TextIO


def prepare() -> None:
    """Make the three usable: without a console (pythonw, a service, `>&-`) and when nobody reads on (`| head -1`)."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # the lowest free number is the one that is missing, and no other file will be taken for it
            setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif number:
            setattr(sys, name, Forgiving(getattr(sys, name)))


class Forgiving:
    """A stream to write to that drops what it cannot write: the work behind it does not end for that."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # for letters that the console's encoding has not

    def write(self, text: str) -> int:
        """Write it if somebody reads on."""
        with suppress(ValueError):  # it is closed
            try:
                return self._stream.write(text)
            except OSError:
                self._give_up()
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        with suppress(ValueError):
            try:
                self._stream.flush()
            except OSError:
                self._give_up()

    def _give_up(self) -> None:
        """Let all that follows go nowhere, what is still to be written at the end of the process too."""
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)
