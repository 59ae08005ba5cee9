"""Run folders: created by the launcher, filled by the trainer, read by everybody."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

from trainer.contract.files import atomic_write
from trainer.contract.home import Home, user_path
from trainer.contract.settings.config import TrainConfig, validated
from trainer.contract.toml import accepted_earlier, read_toml, to_toml
from trainer.dataset.errors import FolderMissing
from trainer.runs.errors import RunBusy, RunMissing, spoken
from trainer.runs.workfolder import WorkFolder


@dataclass(frozen=True)
class RunFolder(WorkFolder):
    """One run's folder. Paths only; what happened is in its events."""

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
            now = time.time_ns()  # the system's own stamp may be the same for runs made within some milliseconds
            os.utime(run.config_file, ns=(now, now))
            return run
        raise FolderMissing(home.runs / stem)

    @classmethod
    def find(cls, home: Home, name: str) -> RunFolder:
        """A run by its name in the home, or by its path.

        Raises:
            RunMissing: Nothing there.
            InvalidSettings: No file can have that path.
        """
        path = user_path(name)
        for candidate in (home.runs / path, path):
            if (candidate / "config.toml").is_file():
                return cls(candidate.resolve())
        raise cls._missing(home, name)

    @classmethod
    def named(cls, home: Home, name: str) -> RunFolder:
        """A run of the home by its name alone: whoever asks over the network is shown no other folder.

        Raises:
            RunMissing: Nothing there.
        """
        path = home.runs / user_path(f"./{name}")
        if name in ("", "..") or PurePath(name).name != name or not (path / "config.toml").is_file():
            raise cls._missing(home, name)
        return cls(path.resolve())

    @classmethod
    def _missing(cls, home: Home, name: str) -> RunMissing:
        return RunMissing(name, [run.path.name for run in cls.all(home)][:5])

    @classmethod
    def all(cls, home: Home) -> list[RunFolder]:
        """Every run of the home, newest first; of those made at once, the one with the higher number in its name."""
        made: dict[RunFolder, tuple[int, int, str]] = {}
        for file in home.runs.glob("*/config.toml"):
            with suppress(OSError):  # deleted meanwhile
                made[cls(file.parent)] = file.stat().st_mtime_ns, len(file.parent.name), file.parent.name
        return sorted(made, key=made.__getitem__, reverse=True)

    @property
    def home(self) -> Home:
        """The home this run lies in."""
        return Home(self.path.parent.parent)

    @property
    def config_file(self) -> Path:
        """The resolved settings, never edited afterwards."""
        return self.path / "config.toml"

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
        return validated(accepted_earlier(read_toml(self.config_file)))

    def busy(self, pid: int | None) -> RunBusy:
        """Returns the error for whoever wants this run while that process trains it."""
        return RunBusy(name=self.path.name, process=spoken(pid))

    def inside(self, relative: str) -> Path:
        """A file of this run by its relative name.

        Raises:
            RunMissing: The name leads out of the folder.
        """
        target = (self.path / relative).resolve()
        if not target.is_relative_to(self.path.resolve()):
            raise RunMissing(os.fspath(relative), [])
        return target
