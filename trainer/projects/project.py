"""A project's folder: `project.toml` holds what was entered, whether or not it can be trained yet.

It is a preset's name and values in sections, as in any file of settings, so `--config` reads it too. Every write
replaces the file as a whole, under a lock: of two who write, each keeps the other's fields, and of one field the last
write counts.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tomlkit
from filelock import FileLock

from trainer.contract.errors import InvalidSettings
from trainer.contract.files import atomic_write, sweep
from trainer.contract.home import Home
from trainer.contract.ours import FileTooLarge, check, read_plain
from trainer.contract.pasted import bare
from trainer.contract.presets import FOLDER, load_preset
from trainer.contract.settings.config import SECTIONS
from trainer.contract.settings.fields import plain_file_name
from trainer.contract.toml import MOST_BYTES, Values, renamed
from trainer.contract.units import size
from trainer.projects.errors import ProjectMissing
from trainer.runs.errors import NewerVersion
from trainer.runs.folder import RunFolder

FORMAT = 1
FILE, LOCK = "project.toml", ".project.lock"
TOP = ("preset", "goal")  # entered beside the sections' settings
LOCK_SECONDS = 10.0


@dataclass(frozen=True)
class Entered:
    """What a person has entered, by "section.setting", "preset" and "goal"; values need not be allowed."""

    values: Mapping[str, Any] = field(default_factory=dict)
    changes: int = 0  # how often something was entered: who shows the project sees by it that another has changed it
    unreadable: bool = False  # the file is there and no project: the next change keeps it aside

    @property
    def preset(self) -> str:
        """The preset's name, empty where none was chosen."""
        return str(self.values.get("preset", ""))

    def layer(self) -> Values:
        """The values nested by section, as `overlay` takes them."""
        made: Values = {}
        for place, value in self.values.items():
            section, _, name = place.rpartition(".")
            if section:
                made.setdefault(section, {})[name] = value
            else:
                made[name] = value
        return renamed(made)

    def toml(self) -> str:
        """The file's text."""
        return tomlkit.dumps({"format": FORMAT, "changes": self.changes}) + self.text()

    def text(self) -> str:
        """What was entered alone, as TOML."""
        nested = self.layer()
        document = {name: nested[name] for name in TOP if name in nested}
        document |= {name: nested[name] for name in [*SECTIONS, *sorted(nested)] if isinstance(nested.get(name), dict)}
        return tomlkit.dumps(document)


def entered_of(values: Values) -> Entered:
    """What a file's values say.

    Raises:
        NewerVersion: They are of a format that is not known here.
    """
    seen = values.get("format", 0)
    if not isinstance(seen, int) or seen > FORMAT:
        raise NewerVersion(name=FILE, seen=seen, known=FORMAT)
    current = renamed(values)
    found = {name: current[name] for name in TOP if name in current}
    for section, inner in current.items():
        if isinstance(inner, dict):
            found |= {f"{section}.{name}": value for name, value in inner.items()}
    changes = values.get("changes", 0)
    return Entered(found, changes if isinstance(changes, int) else 0)


def checked_name(name: str, of: str = "project") -> str:
    """The name of a project or a set, without what was pasted around it.

    Raises:
        InvalidSettings: No folder can be called so on every system.
    """
    wanted = bare(name).rstrip(". ")
    try:
        plain_file_name(wanted)
    except ValueError as error:
        raise InvalidSettings(f"The {of}'s name {name!r} {error}.", hint="Choose another name.") from None
    if not wanted:
        raise InvalidSettings(f"{name!r} cannot be the name of a {of}.", hint="Choose another name.")
    return wanted


@dataclass(frozen=True)
class Project:
    """One project of a home."""

    path: Path
    home: Home

    @classmethod
    def create(cls, home: Home, wanted: str = "Project", values: Mapping[str, Any] | None = None) -> Project:
        """A new project, holding these values; a name that is taken gets a number: "ana", "ana 2".

        Raises:
            InvalidSettings: No folder can be called so on every system.
        """
        name = checked_name(wanted)
        home.projects.mkdir(parents=True, exist_ok=True)
        taken = {path.name.casefold() for path in home.projects.iterdir()}
        number = 1
        while True:
            path = home.projects / (name if number == 1 else f"{name} {number}")
            number += 1
            if path.name.casefold() in taken:
                continue
            with suppress(FileExistsError):  # made by another since
                path.mkdir()
                project = cls(path, home)
                project.enter(values or {})
                return project

    def renamed(self, wanted: str) -> Project:
        """The project under another name, which gets a number if it is taken; its runs keep the name they were given.

        Raises:
            InvalidSettings: No folder can be called so on every system.
        """
        name = checked_name(wanted)
        if name == self.name:
            return self
        taken = {path.name.casefold() for path in self.home.projects.iterdir()} - {self.name.casefold()}
        number = 1
        while (found := name if number == 1 else f"{name} {number}").casefold() in taken:
            number += 1
        return Project(self.path.rename(self.path.with_name(found)), self.home)

    @classmethod
    def named(cls, home: Home, name: str) -> Project:
        """A project of the home by its name alone.

        Raises:
            ProjectMissing: There is none.
        """
        wanted = bare(name)
        there = {project.path.name: project for project in cls.all(home)}
        folded = {key.casefold(): project for key, project in there.items()}
        found = there.get(wanted) or folded.get(wanted.casefold())
        if found is None:
            raise ProjectMissing(name, list(there)[:5])
        return found

    @classmethod
    def all(cls, home: Home) -> list[Project]:
        """Every project of the home, that changed last first."""
        made: dict[Project, int] = {}
        if home.projects.is_dir():
            for path in home.projects.iterdir():
                with suppress(OSError):  # deleted meanwhile
                    if path.is_dir() and not path.is_symlink():
                        made[cls(path, home)] = max(path.stat().st_mtime_ns, _changed(path / FILE))
        return sorted(made, key=lambda project: (made[project], project.path.name), reverse=True)

    @property
    def name(self) -> str:
        """What it is called."""
        return self.path.name

    @property
    def file(self) -> Path:
        """What was entered."""
        return self.path / FILE

    def read(self) -> Entered:
        """What was entered so far; nothing is written.

        Raises:
            NotOurs: A link or no plain file lies in its place.
            NewerVersion: A later version of this program wrote it.
        """
        try:
            values = tomllib.loads(read_plain(self.file, MOST_BYTES).decode())
        except FileNotFoundError:
            return Entered()
        except (ValueError, RecursionError, FileTooLarge):
            return Entered(unreadable=True)
        if any(name in values and not isinstance(values[name], dict) for name in SECTIONS):
            return Entered(unreadable=True)  # the next change would have no place for what is there
        return entered_of(values)

    def enter(self, changes: Mapping[str, Any]) -> Entered:
        """Keep changed fields: a value, or None to take the preset's again; returns all that is entered now.

        A file that cannot be read is kept beside under a name with the time.

        Raises:
            InvalidSettings: A field is no setting's, or it would be more than any settings are.
            NotOurs: A link or no plain file lies in its place.
            NewerVersion: A later version of this program wrote it.
        """
        for place in changes:
            section, _, name = place.partition(".")
            if place not in TOP and (section not in SECTIONS or not name or "." in name):
                raise InvalidSettings(f"There is no setting {place}.", hint="Nothing was changed.")
        with self._changing():
            before = self.read()
            values = {**before.values, **{place: _plain(value) for place, value in changes.items()}}
            kept = {place: value for place, value in values.items() if value is not None}
            now = Entered(kept, before.changes + 1)
            content = now.toml().encode()
            if len(content) > MOST_BYTES:
                seen = f'The project "{self.name}" would take {size(len(content))}; it may have {size(MOST_BYTES)}.'
                raise InvalidSettings(seen, hint="Enter less; nothing was changed.")
            if before.unreadable:
                self._keep_aside()
            atomic_write(self.file, content)
            return replace(now, unreadable=False)

    def layers(self, preset: str = "") -> dict[str, Values]:
        """Preset and project as layers for `overlay`, weakest first, each by its name.

        Args:
            preset: One to take the place of the project's own.

        Raises:
            UnknownPreset: There is none of that name.
        """
        entered = self.read()
        chosen = preset or entered.preset
        made = {f"preset {chosen}": load_preset(chosen, FOLDER, self.home.presets).values} if chosen else {}
        return made | {f"project {self.name}": {**entered.layer(), "preset": chosen, "project": self.name}}

    def runs(self) -> list[RunFolder]:
        """The runs that were started from it, newest first."""
        return [run for run in RunFolder.all(self.home) if run.project() == self.name]

    def _keep_aside(self) -> None:
        stem = f"unreadable {time.strftime('%Y-%m-%d %H-%M-%S')}"
        number = 1
        while (aside := self.path / f"{stem}{f' {number}' if number > 1 else ''}.toml").exists():
            number += 1
        self.file.rename(aside)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        check(self.path, folder=True)
        check(self.path / LOCK, changed=True)
        with FileLock(self.path / LOCK, timeout=LOCK_SECONDS):
            sweep(self.path)
            yield


def _changed(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever was entered
    """The value as TOML can hold it: text without halves of characters, lists and tables of such."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value if inner is not None]
    return value
