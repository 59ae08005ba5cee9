"""What a long log says, kept beside it so that nobody has to read it from its beginning.

A summary is believed only if it is whole, of this version, and made of the very bytes that the log begins with.
"""

import hashlib
import json
import sys
from array import array
from io import BufferedReader
from pathlib import Path
from typing import Any

from trainer.contract.files import atomic_write
from trainer.contract.ours import check, open_plain

FORMAT = 1  # goes up with whatever changes what is kept
MOST_BYTES = 256 << 20  # of a summary: 3 million steps
PIECE = 1 << 20  # bytes read at once, whole figures

Words = dict[str, Any]  # ready for JSON


def place(log: Path) -> Path:
    """Returns the path of a log's summary."""
    return log.with_suffix(".summary")


def keep(log: Path, words: Words, figures: "array[float]", size: int, digest: str) -> None:
    """Write a summary.

    Args:
        log: The log it is of.
        words: What is no figure.
        figures: One step's after the other.
        size: Bytes of the log that it covers.
        digest: SHA-256 of those.

    Raises:
        NotOurs: Something else lies in its place.
        OSError: It cannot be written.
    """
    head = {"format": FORMAT, "order": sys.byteorder, "size": size, "digest": digest, "words": words}
    line = json.dumps(head).encode() + b"\n"
    seal = hashlib.sha256(line)
    seal.update(figures)
    check(place(log))
    atomic_write(place(log), b"".join([seal.hexdigest().encode(), b"\n", line, figures]))


def kept(log: Path) -> tuple[Words, "array[float]", int, Any] | None:
    """Returns words, figures, the bytes of the log they cover, and SHA-256 begun with those; None if it is no use."""
    figures = array("d")
    try:
        with BufferedReader(open_plain(place(log), most=MOST_BYTES)) as file:
            seal, line = file.readline(65), file.readline()
            whole = hashlib.sha256(line)
            while piece := file.read(PIECE):
                whole.update(piece)
                figures.frombytes(piece)
        head = json.loads(line)
        known = head["format"] == FORMAT and head["order"] == sys.byteorder
        if not known or seal != whole.hexdigest().encode() + b"\n":
            return None
        begun = _digest_of(log, head["size"])
        return (head["words"], figures, head["size"], begun) if begun.hexdigest() == head["digest"] else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _digest_of(log: Path, size: int) -> Any:  # noqa: ANN401 - hashlib has no name for it
    """SHA-256 of the log's first bytes, or of all if it has not so many."""
    digest = hashlib.sha256()
    with open_plain(log) as file:
        while size > 0 and (piece := file.read(min(PIECE, size))):
            digest.update(piece)
            size -= len(piece)
    return digest
