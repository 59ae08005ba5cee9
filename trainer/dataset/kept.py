"""Surveys of image folders that are kept: a folder is read again only when a file in it changed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.dataset.scan import Survey, survey

KEPT = 8  # folders

Stamp = frozenset[tuple[str, int, int, int]]


class Surveys:
    """Stands for `survey`, and gives the same answer: that of the last time while no file is another."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], tuple[Stamp, Survey]] = {}
        self._changing = threading.Lock()  # several tabs ask at once

    def __call__(self, folder: Path, captions: Path | None, *rules: Any) -> Survey:  # noqa: ANN401 - as `survey` has it
        """What is in a folder; the arguments and errors are those of `survey`."""
        asked = (folder, captions, *(tuple(rule) if isinstance(rule, list) else rule for rule in rules))
        stamp = frozenset([*_files(folder), *(_files(captions.parent) if captions is not None else [])])
        known = self._known.get(asked)
        if known is None or known[0] != stamp:
            known = stamp, survey(folder, captions, *rules)
        with self._changing:
            self._known.pop(asked, None)  # the one asked for last stands last
            self._known[asked] = known
            while len(self._known) > KEPT:
                self._known.pop(next(iter(self._known)))
        return known[1]


def _files(folder: Path) -> Iterator[tuple[str, int, int, int]]:
    """Every file below a folder, with what changes when it does; what cannot be looked at is not there."""
    waiting, met = [os.fspath(folder)], set[tuple[int, int]]()
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue
        for entry in entries:
            try:
                file = entry.stat()
                if entry.is_dir():
                    waiting += [entry.path] if (file.st_dev, file.st_ino) not in met else []
                    met.add((file.st_dev, file.st_ino))
                else:
                    yield entry.path, file.st_mtime_ns, file.st_ctime_ns, file.st_size
            except OSError:
                continue
