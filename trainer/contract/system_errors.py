"""Refusals of the operating system, and a broken installation, as errors to act on."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trainer.contract.errors import DiskFull, TrainerError
from trainer.contract.wording import action, setting

UNNAMED = "a file"  # if the system does not say which
ELSEWHERE = f"or use {action('home')}"


class SystemRefused(TrainerError):
    """The system refuses something, here for a rare reason; its kinds word `what` happened and the `remedy`."""

    code = "system_refused"
    what = "The system refused: {said}."
    remedy = "Fix what it names, then start again."

    def __init__(self, place: str, said: str = "") -> None:
        super().__init__(place=place, said=said, length=len(place), end=place[-40:])


class NotAllowed(SystemRefused):
    """A file or folder may not be read or written."""

    code = "not_allowed"
    what = "The system does not allow this program to use {place}."
    remedy = f"Give yourself permission to read and write it, {ELSEWHERE}."


class ReadOnly(SystemRefused):
    """A read-only disk."""

    code = "read_only"
    what = "{place} is on a read-only disk."
    remedy = f"Make the disk writable (one that was damaged may have been locked), {ELSEWHERE}."


class NameTooLong(SystemRefused):
    """A path longer than the system allows."""

    code = "name_too_long"
    what = "A path of {length} characters is too long for the system: …{end}."
    remedy = f"Shorten the run's name ({setting('output.name')}), {ELSEWHERE} nearer to the root of its disk."


class DiskGone(SystemRefused):
    """A disk or network folder no longer responds."""

    code = "disk_gone"
    what = "The disk of {place} no longer responds: {said}."
    remedy = "Reconnect it, or check it for damage; then start again, or resume the run."


class FileGone(SystemRefused):
    """A file or folder was moved or deleted while it was needed."""

    code = "file_gone"
    what = "{place} is gone: it was moved or deleted while it was needed."
    remedy = "Put it back where it was, and start again."


class InTheWay(SystemRefused):
    """A file where a folder should be, or the other way round."""

    code = "in_the_way"
    what = "Something else is at {place}: {said}."
    remedy = f"Move it away, {ELSEWHERE}."


class TooManyFiles(SystemRefused):
    """The limit of open files is reached."""

    code = "too_many_files"
    what = "Too many open files; the next was {place}."
    remedy = "Raise the limit (ulimit -n 4096 in the same console), or close other programs."


class BrokenInstall(TrainerError):
    """A library cannot be loaded."""

    code = "broken_install"
    what = "A library cannot be loaded: {detail}."
    remedy = "Delete the folder .venv and start Atelier again: it then reinstalls all of them."


class Unexpected(TrainerError):
    """An error that nobody expected."""

    code = "unexpected"
    what = "Unexpected: {kind}: {error}."
    remedy = "This is a bug in Atelier; please report it with the run's log.txt."


def _disk_full(place: str, said: str) -> TrainerError:
    return DiskFull(detail=said if place == UNNAMED else f"{said} ({place})")


# By the system's number: which error, made from the place and what the system says
KNOWN: dict[int, Callable[[str, str], TrainerError]] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), _disk_full),
    **dict.fromkeys((errno.EACCES, errno.EPERM), NotAllowed),
    errno.EROFS: ReadOnly,
    errno.ENAMETOOLONG: NameTooLong,
    **dict.fromkeys((errno.EIO, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ENOTCONN), DiskGone),
    errno.ENOENT: FileGone,
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR), InTheWay),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), TooManyFiles),
}


def of_system(error: OSError) -> TrainerError:
    """Returns the system's error as one of ours that names the file and what to do."""
    if isinstance(error, TrainerError):
        return error
    if error.errno not in KNOWN:
        return SystemRefused(UNNAMED, str(error))
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
