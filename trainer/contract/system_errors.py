"""Refusals of the operating system, and a broken installation, as errors to act on.

SystemRefused · NotAllowed · ReadOnly · NameTooLong · DiskGone · FileGone · InTheWay · TooManyFiles
BrokenInstall · Unexpected
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trainer.contract.errors import DiskFull, TrainerError
from trainer.contract.wording import action, setting

UNNAMED = "a file"  # if the system does not say which
ELSEWHERE = f"or use {action('home')}"


class SystemRefused(TrainerError):
    """The system refuses something for a rare reason."""

    code = "system_refused"

    def __init__(self, error: OSError) -> None:
        super().__init__(f"The system refused: {error}.", hint="Fix what it names, then start again.")


class NotAllowed(TrainerError):
    """A file or folder may not be read or written."""

    code = "not_allowed"

    def __init__(self, place: str) -> None:
        super().__init__(
            f"The system does not allow this program to use {place}.",
            hint=f"Give yourself permission to read and write it, {ELSEWHERE}.",
        )


class ReadOnly(TrainerError):
    """A read-only disk."""

    code = "read_only"

    def __init__(self, place: str) -> None:
        super().__init__(
            f"{place} is on a read-only disk.",
            hint=f"Make the disk writable (one that was damaged may have been locked), {ELSEWHERE}.",
        )


class NameTooLong(TrainerError):
    """A path longer than the system allows."""

    code = "name_too_long"

    def __init__(self, place: str) -> None:
        super().__init__(
            f"A path of {len(place)} characters is too long for the system: …{place[-40:]}.",
            hint=f"Shorten the run's name ({setting('output.name')}), {ELSEWHERE} nearer to the root of its disk.",
        )


class DiskGone(TrainerError):
    """A disk or network folder no longer responds."""

    code = "disk_gone"

    def __init__(self, place: str, said: str) -> None:
        super().__init__(
            f"The disk of {place} no longer responds: {said}.",
            hint="Reconnect it, or check it for damage; then start again, or resume the run.",
        )


class FileGone(TrainerError):
    """A file or folder was moved or deleted while it was needed."""

    code = "file_gone"

    def __init__(self, place: str) -> None:
        super().__init__(
            f"{place} is gone: it was moved or deleted while it was needed.",
            hint="Put it back where it was, and start again.",
        )


class InTheWay(TrainerError):
    """A file where a folder should be, or the other way round."""

    code = "in_the_way"

    def __init__(self, place: str, said: str) -> None:
        super().__init__(
            f"Something else is at {place}: {said}.",
            hint=f"Move it away, {ELSEWHERE}.",
        )


class TooManyFiles(TrainerError):
    """The limit of open files is reached."""

    code = "too_many_files"

    def __init__(self, place: str) -> None:
        super().__init__(
            f"Too many open files; the next was {place}.",
            hint="Raise the limit (ulimit -n 4096 in the same console), or close other programs.",
        )


class BrokenInstall(TrainerError):
    """A library cannot be loaded."""

    code = "broken_install"

    def __init__(self, detail: str) -> None:
        super().__init__(
            f"A library cannot be loaded: {detail}.",
            hint="Delete the folder .venv and start Atelier again: it then reinstalls all of them.",
        )


class Unexpected(TrainerError):
    """An error that nobody expected."""

    code = "unexpected"

    def __init__(self, error: Exception) -> None:
        super().__init__(
            f"Unexpected: {type(error).__name__}: {error}.",
            hint="This is a bug in Atelier; please report it with the run's log.txt.",
        )


def _disk_full(place: str, said: str) -> TrainerError:
    return DiskFull(said if place == UNNAMED else f"{said} ({place})")


# By the system's number: which error, made from the place and what the system says
KNOWN: dict[int, Callable[[str, str], TrainerError]] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), _disk_full),
    **dict.fromkeys((errno.EACCES, errno.EPERM), lambda place, _: NotAllowed(place)),
    errno.EROFS: lambda place, _: ReadOnly(place),
    errno.ENAMETOOLONG: lambda place, _: NameTooLong(place),
    **dict.fromkeys((errno.EIO, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ENOTCONN), DiskGone),
    errno.ENOENT: lambda place, _: FileGone(place),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR), InTheWay),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), lambda place, _: TooManyFiles(place)),
}


def of_system(error: OSError) -> TrainerError:
    """Returns the system's error as one of ours that names the file and what to do."""
    if error.errno not in KNOWN:
        return SystemRefused(error)
    name = error.filename2 or error.filename  # of a file that is to be renamed, its new place
    place = os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else UNNAMED
    return KNOWN[error.errno](place, error.strerror or str(error))


@contextmanager
def system_explained() -> Iterator[None]:
    """Turn the system's errors inside the block into errors the user can act on."""
    try:
        yield
    except OSError as error:
        raise of_system(error) from error
