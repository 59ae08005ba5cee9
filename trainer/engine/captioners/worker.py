"""`python -m trainer.engine.captioners.worker FOLDER`: caption images as its job says; errors exit with code 2.

Each image's caption is a line of the job's results as soon as it is known, so a process that is killed loses none.
"""

import sys
import time
import traceback
from pathlib import Path

from trainer.captioning.jobs import CaptionJob
from trainer.contract import stops
from trainer.contract.errors import Terminated, isolated
from trainer.contract.events import EventLog, Phase, RunFailed, RunFinished, Warned
from trainer.dataset.captions import Item
from trainer.dataset.encodings import plain
from trainer.dataset.errors import UnreadableImage
from trainer.dataset.problems import Problem
from trainer.engine.captioners.opening import Caption, Stage, open_captioner

REPORT_SECONDS = 1.0


class Stopped(Exception):
    """Somebody asked to stop."""


class Worker:
    """One process's share of a job."""

    def __init__(self, job: CaptionJob, log: EventLog) -> None:
        self.job, self.log = job, log
        self._reported = 0.0

    def work(self) -> None:
        """Caption what is to be captioned, put it into the overlay, and log how it ended."""
        began = time.monotonic()
        try:
            self._caption_all()
            stopped = False
        except Stopped:
            stopped = True
        self.job.apply()
        seen, seconds = len(self.job.results().done), time.monotonic() - began
        self.log.write(RunFinished(reason="stopped" if stopped else "completed", step=seen, seconds=seconds))

    def _caption_all(self) -> None:
        """Find out what is to be captioned, and do it."""
        self.report("load", 0, 0)
        (items, problems), settings = self.job.look(), self.job.settings()
        self._pass_over([problem for problem in problems if problem.code == UnreadableImage.code])
        earlier = self.job.results()
        wanted = [item for item in items if settings.overwrite or not item.caption]
        if not earlier.captions:  # once it was stopped, those it captioned have a caption too
            self.job.note(kept=len(items) - len(wanted))
        known = [item for item in items if item.name not in earlier.applied]
        waiting = [item for item in wanted if item.name not in earlier.done]
        if waiting:
            self._caption(open_captioner(settings, known, self.report), waiting)

    def _pass_over(self, broken: list[Problem]) -> None:
        """Warn of the images that cannot be opened at all."""
        folder = Path(self.job.settings().folder)
        for problem in broken:
            self.log.write(Warned(code=problem.code, message=problem.message, hint=problem.hint))
            for path in problem.images:
                self.job.note(file_name=path.relative_to(folder).as_posix(), unreadable=problem.message)

    def report(self, phase: Stage, done: int, total: int) -> None:
        """Log the progress, once a second.

        Raises:
            Stopped: Somebody asked to.
        """
        if self.job.take_request("stop") or self.job.take_request("end"):
            raise Stopped
        now = time.monotonic()
        if now - self._reported >= REPORT_SECONDS or done in (0, total):
            self._reported = now
            self.log.write(Phase(name=phase, done=done, total=total))

    def _caption(self, caption: Caption, waiting: list[Item]) -> None:
        """A line of results for each image."""
        for number, item in enumerate(waiting):
            self.report("caption", number, len(waiting))
            try:
                text = plain(caption(item))
            except UnreadableImage as error:
                self.job.note(file_name=item.name, unreadable=error.message)
                self.log.write(Warned(code=error.code, message=error.message, hint=error.hint))
            else:
                self.job.note(file_name=item.name, text=text)
        self.report("caption", len(waiting), len(waiting))


def main(arguments: list[str]) -> int:
    """Caption the job's images; returns 0 when it ended well, 2 when it failed with a reason, 130 if ended at once."""
    job = CaptionJob(Path(arguments[0]).absolute())
    failures: list[str] = []

    def asked_to_end(times: int) -> None:
        """Stop after this image; asked again, end now: what was found is kept."""
        if times > 1:
            raise Terminated
        job.request("end")

    try:
        with stops.heard(asked_to_end), job.alone(), EventLog(job.events_file) as log:
            _work(job, log, failures)
    except Terminated:
        return stops.ENDED_BY_SIGNAL
    return 2 if failures else 0


def _work(job: CaptionJob, log: EventLog, failures: list[str]) -> None:
    """Do it; the code of what made it fail is added to `failures`."""

    def failed(code: str, message: str, hint: str) -> None:
        """Log why it failed; the technical details go to log.txt."""
        failures.append(code)
        log.write(RunFailed(code=code, message=message, hint=hint))
        traceback.print_exc()

    job.claim()
    with isolated("Captioning", failed, "Details are in log.txt. Start it again to resume."):
        Worker(job, log).work()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
