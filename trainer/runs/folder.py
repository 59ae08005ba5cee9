"""Run folders: created by the launcher, filled by the trainer, read by everybody."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from trainer.contract.errors import InvalidSettings
from trainer.contract.files import atomic_write
from trainer.contract.home import HOME, Home, user_path
from trainer.contract.ours import check, check_below
from trainer.contract.settings.config import TrainConfig, validated
from trainer.contract.toml import accepted_earlier, read_toml, to_toml
from trainer.dataset.errors import FolderMissing
from trainer.runs import moved
from trainer.runs.errors import RunBusy, RunMissing, spoken
from trainer.runs.workfolder import WorkFolder

TIME = re.compile(r"-\d{8}-\d{6}(-\d+)?$")  # what follows the LoRA's name in a folder's


@dataclass(frozen=True)
class RunFolder(WorkFolder):
    """One run's folder. Paths only; what happened is in its events."""

    of: Home | None = field(default=None, compare=False)  # where it was looked for: the folder itself does not tell

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
            run = cls(path, home)
            run.control.mkdir()
            atomic_write(run.config_file, to_toml(config).encode())
            now = time.time_ns()  # the system's own stamp may be the same for runs made within some milliseconds
            os.utime(run.config_file, ns=(now, now))
            return run
        raise FolderMissing(home.runs / stem)

    @property
    def called(self) -> str:
        """The LoRA's name as the folder's has it, without the time."""
        return TIME.sub("", self.path.name)

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
                real = candidate.resolve()
                return cls(home.runs / real.name if real.parent == home.runs.resolve() else real, home)
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
        return cls(path, home)

    @classmethod
    def _missing(cls, home: Home, name: str) -> RunMissing:
        return RunMissing(name, [run.path.name for run in cls.all(home)][:5])

    @classmethod
    def all(cls, home: Home) -> list[RunFolder]:
        """Every run of the home, newest first; of those made at once, the one with the higher number in its name."""
        made: dict[RunFolder, tuple[int, int, str]] = {}
        for file in home.runs.glob("*/config.toml"):
            with suppress(OSError):  # deleted meanwhile
                made[cls(file.parent, home)] = file.stat().st_mtime_ns, len(file.parent.name), file.parent.name
        return sorted(made, key=made.__getitem__, reverse=True)

    @property
    def home(self) -> Home:
        """The home in which the run was looked for, else the user's own; never one made of the folders around it.

        Only where nobody chose a home, the folder above `runs` is taken for it.
        """
        lies_in = Home(self.path.parent.parent)
        chosen = bool(os.environ.get(HOME)) or lies_in.runs != self.path.parent
        return self.of or (Home.find() if chosen else lies_in)

    @property
    def config_file(self) -> Path:
        """The resolved settings, never edited afterwards."""
        return self.path / "config.toml"

    @property
    def moved_file(self) -> Path:
        """Where images, base model and VAE are now, if they were moved."""
        return self.path / moved.MOVED

    @property
    def samples(self) -> Path:
        """Folder of previews."""
        return self.path / "samples"

    @property
    def checkpoints(self) -> Path:
        """Folder of resumable states."""
        return self.path / "checkpoints"

    def project(self) -> str:
        """The project that the run belongs to, empty for none."""
        with suppress(InvalidSettings, OSError):
            return str(read_toml(self.config_file).get("project", ""))
        return ""

    def config(self) -> TrainConfig:
        """The run's settings, its files where they are now.

        Raises:
            NotOurs: Their file is no plain file.
            InvalidSettings: Another version wrote them.
        """
        return moved.present(self.begun_with(), moved.recorded(self.moved_file), self.home)

    def begun_with(self) -> TrainConfig:
        """The run's settings as they were when it began.

        Raises:
            NotOurs: Their file is no plain file.
            InvalidSettings: Another version wrote them.
        """
        check(self.config_file)
        return validated(accepted_earlier(read_toml(self.config_file)))

    def busy(self, pid: int | None) -> RunBusy:
        """Returns the error for whoever wants this run while that process trains it."""
        return RunBusy(name=self.path.name, process=spoken(pid))

    def inside(self, relative: str) -> Path:
        """A file of this run by its relative name.

        Raises:
            RunMissing: The name leads out of the folder.
            NotOurs: It is no plain file, or lies in a linked folder.
        """
        target = (self.path / relative).resolve()
        if not target.is_relative_to(self.path.resolve()):
            raise RunMissing(os.fspath(relative), [])
        check_below(self.path, PurePath(os.path.normpath(relative)))
        return target
