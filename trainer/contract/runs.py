"""Run folders: created by the launcher, filled by the trainer, read by everybody."""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from trainer.contract.errors import FolderMissing, RunBusy, RunMissing
from trainer.contract.events import RunView, Status, read_events
from trainer.contract.home import Home, atomic_write
from trainer.contract.presets import read_toml, to_toml
from trainer.contract.settings import TrainConfig, validated

Request = Literal["stop", "pause", "sample", "save"]


@dataclass(frozen=True)
class RunFolder:
    """One run's folder. Paths only; what happened is in its events."""

    path: Path

    @classmethod
    def create(cls, home: Home, config: TrainConfig) -> RunFolder:
        """A fresh folder with the complete, resolved `config.toml`; its name is the LoRA's name and the time."""
        slug = re.sub(r"[^\w.-]+", "-", config.output.name).strip("-.") or "lora"
        stem = f"{slug}-{time.strftime('%Y%m%d-%H%M%S')}"
        home.runs.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, 1000):
            path = home.runs / (stem if attempt == 1 else f"{stem}-{attempt}")
            try:
                path.mkdir()
            except FileExistsError:
                continue
            run = cls(path)
            run.control.mkdir()
            atomic_write(run.config_file, to_toml(config).encode())
            return run
        raise FolderMissing(home.runs / stem)

    @classmethod
    def find(cls, home: Home, name: str) -> RunFolder:
        """A run by its name in the home, or by its path.

        Raises:
            RunMissing: Nothing there.
        """
        for candidate in (home.runs / name, Path(name).expanduser()):
            if (candidate / "config.toml").is_file():
                return cls(candidate.resolve())
        raise RunMissing(name, [run.path.name for run in cls.all(home)][:5])

    @classmethod
    def all(cls, home: Home) -> list[RunFolder]:
        """Every run of the home, newest first."""
        found = [cls(file.parent) for file in home.runs.glob("*/config.toml")]
        return sorted(found, key=lambda run: run.config_file.stat().st_mtime, reverse=True)

    @property
    def home(self) -> Home:
        """The home this run lies in."""
        return Home(self.path.parent.parent)

    @property
    def config_file(self) -> Path:
        """The resolved settings, never edited afterwards."""
        return self.path / "config.toml"

    @property
    def events_file(self) -> Path:
        """The append-only log."""
        return self.path / "events.jsonl"

    @property
    def log_file(self) -> Path:
        """Raw output of the process, tracebacks included."""
        return self.path / "log.txt"

    @property
    def process_file(self) -> Path:
        """Process number and start time of the trainer."""
        return self.path / "process.json"

    @property
    def control(self) -> Path:
        """Folder of empty request files."""
        return self.path / "control"

    @property
    def samples(self) -> Path:
        """Folder of previews."""
        return self.path / "samples"

    @property
    def checkpoints(self) -> Path:
        """Folder of resumable states."""
        return self.path / "checkpoints"

    def config(self) -> TrainConfig:
        """The run's settings."""
        return validated(read_toml(self.config_file))

    def view(self) -> RunView:
        """All events so far, folded."""
        return RunView().fold(read_events(self.events_file)[0])

    def status(self, view: RunView | None = None) -> Status:
        """The run's state; who has folded its events already gives them."""
        view, trainer = view or self.view(), self.process()
        if trainer is not None and view.ended is not None and self._taken_up() > view.ended.t:
            return "running"  # continued after that end, and still loading
        status = view.status(trainer is not None)
        # Killed while it was still loading: there is no event yet, but there was a process
        return "interrupted" if status == "waiting" and self.process_file.exists() else status

    def _taken_up(self) -> float:
        """When the process that trains here was written down; it may have been started long before."""
        try:
            record = json.loads(self.process_file.read_text())
            return float(record.get("since", record["started"]))
        except (OSError, ValueError, KeyError):  # it has just ended
            return 0.0

    def request(self, what: Request) -> None:
        """Ask the trainer for something; it looks once per step."""
        self.control.mkdir(exist_ok=True)
        (self.control / what).touch()

    def asked_for(self, what: Request) -> float | None:
        """Seconds since this was asked for, while the trainer has not taken it up; else None."""
        try:
            return max(time.time() - (self.control / what).stat().st_mtime, 0.0)
        except FileNotFoundError:
            return None

    def take_request(self, what: Request) -> bool:
        """Whether something was asked for; asking is then over."""
        try:
            (self.control / what).unlink()
        except FileNotFoundError:
            return False
        return True

    def forget_requests(self) -> None:
        """Drop what an earlier process was asked for; done before a new one starts, so nothing meant for it is lost."""
        for old in self.control.glob("*"):
            old.unlink()

    def claim(self) -> None:
        """Write down that this very process trains here.

        Raises:
            RunBusy: Another one does.
        """
        other = self.process()
        if other is not None and other.pid != os.getpid():
            raise RunBusy(self.path.name, other.pid)
        self.record(psutil.Process())

    def record(self, trainer: psutil.Process) -> None:
        """Write down which process trains here."""
        record = {"pid": trainer.pid, "started": trainer.create_time(), "since": time.time()}
        atomic_write(self.process_file, json.dumps(record).encode())

    def release(self) -> None:
        """Let the run be nobody's: its process is about to end."""
        self.process_file.unlink(missing_ok=True)

    def process(self) -> psutil.Process | None:
        """The live process training here, or None; a zombie or a reused process number does not count."""
        try:
            record = json.loads(self.process_file.read_text())
            process = psutil.Process(record["pid"])
            # The start time shifts when the system clock is set; the command line then still tells
            same = abs(process.create_time() - record["started"]) < 1.0 or str(self.path) in process.cmdline()
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):
            return None

    def inside(self, relative: str) -> Path:
        """A file of this run by its relative name.

        Raises:
            RunMissing: The name leads out of the folder.
        """
        target = (self.path / relative).resolve()
        if not target.is_relative_to(self.path.resolve()):
            raise RunMissing(os.fspath(relative), [])
        return target
