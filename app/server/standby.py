"""A trainer kept ready while a page is open: its libraries take seconds to load, and Train should begin at once."""

import psutil

from trainer.contract.home import Home
from trainer.runs import process
from trainer.runs.queue import Queue

LOOK_SECONDS = 3.0  # between two looks; the first pages are opened before the first
SPARE_BYTES = 4 * 2**30  # free memory from which on 0.3 GB are not missed


class Standby:
    """Starts and stops the spare trainer; called with every answer to an open page."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._due = 0.0

    def keep(self, now: float) -> None:
        """Start the spare trainer when none trains, and stop it when memory is short; `now` in seconds."""
        if now < self._due:
            return
        first, self._due = self._due == 0.0, now + LOOK_SECONDS
        if first:
            return
        if psutil.virtual_memory().available < SPARE_BYTES:
            process.stand_down()
        elif Queue(self.home).active() is None:
            process.stand_by()
