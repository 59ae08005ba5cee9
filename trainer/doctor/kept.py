"""What was measured of images, kept in the home's cache, so that an image is decoded once and not at every check.

Each image folder has one file of each kind there, `cache/doctor/<64 hex>.entry`, safe to delete; the limit of the
trainer's cache counts it too. Files are recognized by length, times, and inode (`version_of`), so a check reads none
that is unchanged. A damaged file counts as none, and so does one that other code has measured: no number of a version
to remember, but a digest of the code itself.
"""

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, TypeVar

from filelock import FileLock
from pydantic import ConfigDict, TypeAdapter

from trainer.contract.files import atomic_write
from trainer.contract.home import Home
from trainer.contract.ours import NotOurs, check, read_plain
from trainer.contract.settings.config import TrainConfig
from trainer.dataset import formats, images

LIMIT_BYTES = 1 << 30  # of all files together; an image takes 17 kB
MOST = 30_000  # images of one folder that are kept
PORTION = 500  # after as many new ones, and again after as many as are there, they are written: a check may be killed
WAIT_SECONDS = 30  # for another process that writes
CHECKSUM_BYTES = 32  # SHA-256 of the rest of a file, in front of it

Record = TypeVar("Record")
Records = dict[str, tuple[str, Record]]  # by name in the folder: the file's version, and what was measured


def records(kind: Any) -> TypeAdapter[Records[Any]]:  # noqa: ANN401 - any type that JSON can hold
    """Returns what reads and writes records of this type as JSON, bytes and infinities included."""
    as_json = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants")
    return TypeAdapter(dict[str, tuple[str, kind]], config=as_json)


class Folders:
    """Image folders, of which some may lie in others."""

    def __init__(self, chosen: Iterable[Path]) -> None:
        roots = {folder.absolute() for folder in chosen}
        self.roots = sorted(roots, key=lambda root: -len(root.parts))  # the inner one has the image
        self._places: dict[Path, tuple[Path, str] | None] = {}

    def place(self, image: Path) -> tuple[Path, str] | None:
        """Folder and name of an image, unless it lies elsewhere."""
        if image not in self._places:
            path = image.absolute()
            inside = ((root, path.relative_to(root).as_posix()) for root in self.roots if path.is_relative_to(root))
            self._places[image] = next(inside, None)
        return self._places[image]


def folders_of(config: TrainConfig) -> Folders:
    """Returns the image folders of a data set."""
    return Folders(config.dataset.folders)


class Kept(Generic[Record]):
    """Measurements of one kind, by image. Threads may share `find`; the rest is one thread's."""

    def __init__(self, home: Home, kind: str, adapter: TypeAdapter[Records[Record]], folders: Folders) -> None:
        """Read what is known of the folders.

        Args:
            home: In whose cache it is.
            kind: A word that tells this kind of measurement from others.
            adapter: What `records` made for its type.
            folders: The image folders; what lies elsewhere is not kept.

        Raises:
            NotOurs: The cache's folder, or a file of its, is a link or nothing plain.
        """
        self._folder, self._kind, self._adapter, self._folders = home.cache / "doctor", kind, adapter, folders
        check(self._folder, folder=True)
        self._known = {root: self._read(self._file(root)) for root in folders.roots}
        self._fresh: dict[Path, Records[Record]] = {root: {} for root in folders.roots}

    def find(self, path: Path, seen: str) -> Record | None:
        """What was measured of this version of a file, if it was."""
        root, name = self._folders.place(path) or (path, "")
        known = self._known.get(root, {}).get(name)
        return known[1] if known and known[0] == seen else None

    def keep(self, path: Path, seen: str, record: Record) -> None:
        """Note what was measured of this version of a file; it is written at times, and by `save`."""
        place = self._folders.place(path)
        if place is not None and self.find(path, seen) is not record:
            root, name = place
            self._fresh[root][name] = self._known[root][name] = (seen, record)
            if len(self._fresh[root]) >= max(PORTION, len(self._known[root]) // 2):
                self.save()

    def save(self) -> None:
        """Write what is new; where the cache cannot be written, it is measured again the next time.

        Raises:
            NotOurs: A file of the cache is a link or nothing plain.
        """
        for root, fresh in self._fresh.items():
            if not fresh:
                continue
            try:
                self._write(root, fresh)
            except NotOurs:
                raise
            except OSError:
                continue
            fresh.clear()

    def _write(self, root: Path, fresh: Records[Record]) -> None:
        """Add to what is there by now, without images that are gone."""
        file, lock = self._file(root), self._folder / ".lock"
        self._folder.mkdir(parents=True, exist_ok=True)
        check(lock, changed=True)
        with FileLock(lock, timeout=WAIT_SECONDS):
            merged = {**self._read(file), **fresh}
            there = [name for name in merged if (root / name).exists()]
            data = self._adapter.dump_json({name: merged[name] for name in there[-MOST:]})
            atomic_write(file, _checksum(data) + data)
            self._trim(file)

    def _read(self, file: Path) -> Records[Record]:
        """The records of a file, none if it is not there, damaged or of other code; its time says when it was used."""
        try:
            content = memoryview(read_plain(file))
            data = bytes(content[CHECKSUM_BYTES:])
            if content[:CHECKSUM_BYTES] != _checksum(data):
                return {}
            known = self._adapter.validate_json(data)
        except NotOurs:
            raise
        except (OSError, ValueError):
            return {}
        with suppress(OSError):  # it is another user's, or on a disk that cannot be written to
            os.utime(file)
        return known

    def _file(self, root: Path) -> Path:
        named = hashlib.sha256(self._kind.encode() + b"\0" + os.fsencode(root.resolve())).hexdigest()
        return self._folder / f"{named}.entry"

    def _trim(self, newest: Path) -> None:
        """Delete files beyond the limit, what lay unused longest first."""
        files = sorted(((one.lstat(), one) for one in self._folder.glob("*.entry")), key=lambda one: one[0].st_mtime_ns)
        spare = sum(found.st_size for found, _ in files) - LIMIT_BYTES
        for found, file in files:
            if spare > 0 and file != newest:
                with suppress(OSError):  # another process reads it, on Windows
                    file.unlink()
                    spare -= found.st_size


def _checksum(data: bytes) -> bytes:
    """The digest of these bytes as this code writes them."""
    return hashlib.sha256(_measured_by() + data).digest()


@cache
def _measured_by() -> bytes:
    """Identifies the code that measures: of this package, and what decodes images for it."""
    ours = [*sorted(Path(__file__).parent.glob("*.py")), Path(images.__file__), Path(formats.__file__)]
    libraries = [*formats.readable_formats(), *(f"{name} {version(name)}" for name in ("numpy", "pillow"))]
    return hashlib.sha256(b"\0".join([*(file.read_bytes() for file in ours), *map(str.encode, libraries)])).digest()
