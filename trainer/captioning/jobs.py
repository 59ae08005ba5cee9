"""Captioning a folder in a process of its own: started, watched and stopped here, carried out by the engine's worker.

An image folder's work lies beside its overlay, `datasets/<name>-<8 hex>/captioning/`: the settings, the events that a
run has too, and `captions.jsonl` with a line for each image as soon as it is done. Once the work ends or is stopped,
these become one change of the overlay. The lines of a killed process stay, and the next one resumes there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import tomlkit

from trainer.captioning.catalogue import CAPTIONERS, Captioner, CaptionSettings, caption_settings
from trainer.captioning.errors import CaptioningBusy
from trainer.contract.events import RunFailed, Status, Warned
from trainer.contract.files import append_line, atomic_write
from trainer.contract.home import Home
from trainer.contract.ours import check_all, read_plain
from trainer.contract.toml import read_toml
from trainer.dataset.captions import Item
from trainer.dataset.errors import FolderMissing
from trainer.dataset.overlay import Entry, captioning_folder, change, existing_overlay
from trainer.dataset.problems import Problem
from trainer.dataset.scan import look
from trainer.runs import process
from trainer.runs.errors import spoken
from trainer.runs.workfolder import WorkFolder

MODULE = "trainer.engine.captioners.worker"
RESULTS_BYTES = 256 << 20  # a line of some 300 for each image


@dataclass
class Results:
    """What was found so far."""

    captions: dict[str, str] = field(default_factory=dict)  # by the image's name; empty: nothing was found for it
    unreadable: dict[str, str] = field(default_factory=dict)  # why, by the image's name
    kept: int = 0  # images that keep the caption they have
    applied: set[str] = field(default_factory=set)  # those that are in the overlay, or were

    @property
    def done(self) -> set[str]:
        """The images that need not be looked at again."""
        return {*self.captions, *self.unreadable}


@dataclass(frozen=True)
class Progress:
    """What a screen shows of a folder's captioning."""

    status: Status  # that of a run; "interrupted": the process is gone, and starting again resumes there
    phase: str  # download (MiB), load, compare, caption; empty before the first
    done: int
    total: int
    captioned: int  # images that got a caption
    without: int  # looked at, and nothing was found
    kept: int  # skipped, since they have a caption
    unreadable: int  # skipped
    warnings: tuple[Warned, ...]
    failed: RunFailed | None


@dataclass(frozen=True)
class CaptionJob(WorkFolder):
    """The captioning of one image folder, the newest there was."""

    @classmethod
    def of(cls, home: Home, folder: Path) -> CaptionJob:
        """That of this image folder; `exists` says whether there ever was one."""
        return cls(captioning_folder(home, folder))

    @property
    def exists(self) -> bool:
        """Whether this folder was ever captioned."""
        return self.settings_file.is_file()

    @property
    def home(self) -> Home:
        """The home it lies in."""
        return Home(self.path.parents[2])

    @property
    def settings_file(self) -> Path:
        """How to caption."""
        return self.path / "job.toml"

    @property
    def results_file(self) -> Path:
        """A line for each image; only ever added to."""
        return self.path / "captions.jsonl"

    def settings(self) -> CaptionSettings:
        """How it captions.

        Raises:
            InvalidSettings: They cannot be read.
        """
        return caption_settings(read_toml(self.settings_file))

    def captioner(self) -> Captioner:
        """What captions."""
        return CAPTIONERS[self.settings().captioner]

    def busy(self, pid: int | None) -> CaptioningBusy:
        """Returns the error for whoever wants to caption this folder while that process does."""
        return CaptioningBusy(folder=self.settings().folder, process=spoken(pid))

    def look(self) -> tuple[list[Item], list[Problem]]:
        """The folder's images that can be opened, with the captions they have now, and what is wrong with others.

        The words of a folder such as 10_ana woman are no captions: they say the same of all its images.

        Raises:
            DatasetError: There are none, or the overlay cannot be read.
        """
        folder = Path(self.settings().folder)
        return look(folder, existing_overlay(self.home, folder), folder_repeats=False)

    def results(self) -> Results:
        """Returns all lines so far; one truncated by a crash is skipped, and its image is captioned again."""
        found = Results()
        try:
            lines = read_plain(self.results_file, RESULTS_BYTES).split(b"\n")
        except FileNotFoundError:
            return found
        for line in lines:
            with suppress(ValueError, TypeError, RecursionError):  # a list of lists names no images
                _take_in(found, json.loads(line))
        return found

    def note(self, **record: Any) -> None:  # noqa: ANN401 - a line of JSON
        """Add one line to the results."""
        append_line(self.results_file, json.dumps(record, ensure_ascii=False).encode())

    def apply(self) -> None:
        """Put into the overlay, as one change, what is not there yet.

        An image that got a caption from its owner in the meantime keeps it, unless existing ones are to be replaced.

        Raises:
            DatasetError: The overlay cannot be read.
        """
        found, settings = self.results(), self.settings()
        waiting = {name: text for name, text in found.captions.items() if text and name not in found.applied}
        if not waiting:
            return

        def captioned(text: str, entry: Entry) -> Entry:
            """The entry with this caption, unless its owner wrote one since the images were looked at."""
            return entry if entry.text and not settings.overwrite else replace(entry, text=text)

        free = {item.name for item in self.look()[0] if settings.overwrite or not item.caption}
        fresh = {name: partial(captioned, text) for name, text in waiting.items() if name in free}
        change(self.home, Path(settings.folder), fresh, f"{self.captioner().label}: {len(fresh)}")
        self.note(applied=sorted(waiting))

    def progress(self) -> Progress:
        """How far it is."""
        view, found = self.view(), self.results()
        phase = view.phase
        texts = list(found.captions.values())
        return Progress(
            status=self.status(view),
            phase=phase.name if phase else "",
            done=phase.done if phase else 0,
            total=phase.total if phase else 0,
            captioned=sum(map(bool, texts)),
            without=texts.count(""),
            kept=found.kept,
            unreadable=len(found.unreadable),
            warnings=tuple(view.warnings),
            failed=view.ended if isinstance(view.ended, RunFailed) else None,
        )


def prepare(home: Home, settings: CaptionSettings) -> CaptionJob:
    """Returns the job of this folder, ready to start: an unfinished one of the same settings resumes, else a new one.

    What an unfinished job of other settings had found is put into the overlay first, so that nothing is lost.

    Raises:
        FolderMissing: No such folder.
        CaptionerError: A library or the model is missing.
        CaptioningBusy: A process captions there already.
    """
    folder = Path(settings.folder)
    if not folder.is_dir():
        raise FolderMissing(folder)
    CAPTIONERS[settings.captioner].check(settings)
    job = CaptionJob.of(home, folder)
    worker = job.process()
    if worker is not None:
        raise job.busy(worker.pid)
    if job.exists and (job.status() == "completed" or _asked(job.settings()) != _asked(settings)):
        job.apply()
        check_all(job.path)
        shutil.rmtree(job.path)
    job.control.mkdir(parents=True, exist_ok=True)
    atomic_write(job.settings_file, tomlkit.dumps(settings.model_dump(mode="json")).encode())
    return job


def start(home: Home, settings: CaptionSettings) -> CaptionJob:
    """Caption a folder in the background, or resume; `request("stop")` on the result stops it.

    Raises:
        FolderMissing: No such folder.
        CaptionerError: A library or the model is missing.
        CaptioningBusy: A process captions there already.
    """
    job = prepare(home, settings)
    process.work(job, MODULE)
    return job


def _asked(settings: CaptionSettings) -> CaptionSettings:
    """What decides the captions: whether a model may be fetched does not."""
    return settings.model_copy(update={"download": False})


def _take_in(found: Results, record: Mapping[str, Any]) -> None:
    """Add one line of the results."""
    match record:
        case {"file_name": str(name), "text": str(text)}:
            found.captions[name] = text
        case {"file_name": str(name), "unreadable": str(why)}:
            found.unreadable[name] = why
        case {"applied": list(names)}:
            found.applied.update(names)
        case {"kept": int(count)}:
            found.kept = count
        case _:
            pass  # of a later version
