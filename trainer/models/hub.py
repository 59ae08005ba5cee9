"""Models of the Hugging Face hub: which files training needs, whether they are here, and fetching them.

Files lie where the hub's own client keeps them (https://huggingface.co/docs/huggingface_hub/guides/manage-cache), so
every program on this computer shares them. The transfer is our own: since version 2 that client discards a partial
file when the connection stays broken for some seconds, and a UNet has 5 GB.
"""

import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from trainer.contract.errors import InvalidSettings
from trainer.contract.files import atomic_write
from trainer.models.hub_errors import (
    DamagedDownload,
    HubUnreachable,
    NoModelInRepository,
    NoRoom,
    NotOnTheHub,
    explained,
)
from trainer.models.hub_files import INDEX_FILE, diffusers_files, single_files, whole

WORD = r"\w+(?:(?:-\.?|\.-?)\w+)*"  # the hub allows no "--" and no ".." in names, and neither sign at an end
NAME = re.compile(rf"{WORD}/{WORD}(?<!\.git)(?:/(?!.*\.\.)[^\\]{{1,200}}\.safetensors)?", re.ASCII)
UNUSUAL = re.compile(r"\\|\.\.")  # in a file's name: it could lead out of the snapshot
HASH = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
TIMEOUT = 20.0  # seconds without a byte
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before a broken transfer resumes; any progress restarts them
CHUNK = 2**20
MOST_NAMED = 5
Choose = Callable[[str, Sequence[str]], tuple[str, ...]]  # a model's name and its repository's files -> those needed


@dataclass(frozen=True)
class Download:
    """The files of a model that training needs, at one state of its repository."""

    name: str
    revision: str
    files: tuple[str, ...]
    bytes: int
    missing_bytes: int


@dataclass(frozen=True)
class _Remote:
    """A file as the hub describes it; `key` names its content: SHA-256 of large files, git's hash of small ones."""

    path: str
    bytes: int
    key: str


def is_hub_name(base_model: str) -> bool:
    """Whether this can name a model of the hub, "owner/name" or "owner/name/file.safetensors", and no path here."""
    return bool(NAME.fullmatch(base_model)) and not Path(base_model).exists()


def look(name: str, choose: Choose | None = None) -> Download:
    """Returns which files of a model are needed and how much is missing; asks the hub, downloads nothing.

    Args:
        name: The model.
        choose: Names the files that are needed of all there are, or refuses them; None: those that training needs.

    Raises:
        InvalidSettings: The repository holds several models.
        HubError: It holds none, cannot be reached, or is not for this user.
    """
    import huggingface_hub as client

    repository, _ = _split(name)
    revision, remotes, gated = _listing(name)
    wanted = (choose or _chosen)(name, [remote.path for remote in remotes])
    chosen = [remote for remote in remotes if remote.path in wanted]
    if gated:  # its list is public; the first file shows whether the license was accepted
        with explained(name):
            url = client.hf_hub_url(repository, wanted[0], revision=revision)
            client.get_hf_file_metadata(url, timeout=TIMEOUT)
    total = sum(remote.bytes for remote in chosen)
    here = sum(_arrived(_storage(repository), revision, remote) for remote in chosen)
    return Download(name, revision, wanted, total, total - here)


def local_folder(name: str, found: Callable[[Path], Path | None] = whole) -> Path | None:
    """Returns the model's folder or file in the hub's cache if it is complete; asks no network.

    Args:
        name: The model.
        found: What of a snapshot's folder is the model, None while something is missing.
    """
    repository, file = _split(name)
    try:
        snapshot = _newest(_storage(repository))
        if file:
            return snapshot / file if (snapshot / file).is_file() else None
        return found(snapshot)
    except (OSError, ValueError):
        return None


def fetch(wanted: Download, progress: Callable[[int, int], None]) -> Path:
    """Download what is missing of a model; returns its folder or file in the hub's cache.

    What has arrived is kept when the download fails or `progress` raises, and the next call resumes there.

    Args:
        wanted: The result of `look`.
        progress: Called with the bytes here and the total, about once per megabyte.

    Raises:
        HubError: It cannot be reached, is not for this user, or does not fit on the disk.
    """
    repository, _ = _split(wanted.name)
    storage = _storage(repository)
    snapshot = storage / "snapshots" / wanted.revision
    if not all((snapshot / path).is_file() for path in wanted.files):
        _fetch_missing(wanted, storage, progress)
    progress(wanted.bytes, wanted.bytes)
    atomic_write(storage / "refs" / "main", wanted.revision.encode())
    return snapshot if len(wanted.files) > 1 else snapshot / wanted.files[0]


def cache_folder() -> Path:
    """Where the hub's client keeps models on this computer: HF_HUB_CACHE, else below HF_HOME."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def cached_models() -> Iterator[tuple[str, Path]]:
    """Whole models in the hub's cache: owner/name and folder, or owner/name/file and file."""
    for storage in sorted(cache_folder().glob("models--*--*")):
        name = storage.name.removeprefix("models--").replace("--", "/", 1)
        if one := local_folder(name):
            yield name, one
            continue
        with suppress(OSError):  # refs/main is missing after a download that was broken off
            snapshot = _newest(storage)
            files = [] if (snapshot / INDEX_FILE).exists() else sorted(snapshot.glob("*.safetensors"))
            yield from ((f"{name}/{file.name}", file) for file in files)


def _split(name: str) -> tuple[str, str]:
    """A name's repository and the file in it, empty where the name gives none."""
    owner, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    return f"{owner}/{repository}", file


def _storage(repository: str) -> Path:
    return cache_folder() / f"models--{repository.replace('/', '--')}"


def _newest(storage: Path) -> Path:
    """The snapshot of the state that was the newest when a program last asked the hub."""
    return storage / "snapshots" / (storage / "refs" / "main").read_text(encoding="utf-8").strip()


def _listing(name: str, revision: str | None = None) -> tuple[str, list[_Remote], bool]:
    """The repository's state (a commit), its files, and whether it asks for a license to be accepted."""
    import huggingface_hub as client

    # Otherwise the client sends the list of installed libraries with every request
    client.constants.HF_HUB_DISABLE_TELEMETRY = True
    repository, _ = _split(name)
    with explained(name):
        info = client.HfApi().model_info(repository, revision=revision, files_metadata=True, timeout=TIMEOUT)
    remotes = [
        _Remote(one.rfilename, one.size or 0, one.lfs.sha256 if one.lfs else one.blob_id or "")
        for one in info.siblings or ()
        if not UNUSUAL.search(one.rfilename)
    ]
    if not all(HASH.fullmatch(key) for key in (info.sha or "", *(remote.key for remote in remotes))):
        raise HubUnreachable(name=name, cause="its list of files has another form than expected")
    return info.sha or "", remotes, bool(info.gated)


def _chosen(name: str, paths: Sequence[str]) -> tuple[str, ...]:
    """The files that training needs, small ones first.

    Raises:
        InvalidSettings: Several models to choose from.
        NotOnTheHub: The file that the name gives is not among them.
        NoModelInRepository: No model.
    """
    _, file = _split(name)
    if file:
        if file not in paths:
            raise NotOnTheHub(name=name)
        return (file,)
    folders = {path.partition("/")[0] for path in paths if "/" in path}
    if INDEX_FILE in paths and (wanted := diffusers_files(paths, folders)):
        return wanted
    single = single_files(paths)
    if len(single) > 1:
        more = f" and {len(single) - MOST_NAMED} more" if len(single) > MOST_NAMED else ""
        raise InvalidSettings(
            f"{name} holds several models: {', '.join(single[:MOST_NAMED])}{more}.",
            hint=f"Write which one, as {name}/{single[0]}.",
            places={"model.base_model": f"{len(single)} models of that name"},
        )
    if not single:
        raise NoModelInRepository(name=name)
    return (single[0],)


def _arrived(storage: Path, revision: str, remote: _Remote) -> int:
    """Bytes of a file that are here already."""
    blob = storage / "blobs" / remote.key
    if blob.is_file() or (storage / "snapshots" / revision / remote.path).is_file():
        return remote.bytes
    return min(_length(_part(blob)), remote.bytes)


def _part(blob: Path) -> Path:
    """A partial file, named as the hub's client named it while it still resumed downloads."""
    return blob.with_name(f"{blob.name}.incomplete")


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _fetch_missing(wanted: Download, storage: Path, progress: Callable[[int, int], None]) -> None:
    """Every file of the download in the cache, each under its content's name and linked to from the snapshot."""
    _, remotes, _ = _listing(wanted.name, wanted.revision)
    chosen = [remote for path in wanted.files for remote in remotes if remote.path == path]
    done = sum(_arrived(storage, wanted.revision, remote) for remote in chosen)
    locks = storage.parent / ".locks" / storage.name  # those of the hub's client: no two programs write one file
    for folder in (storage / "blobs", locks):
        folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(storage).free < wanted.bytes - done:
        raise NoRoom(wanted.name, wanted.bytes - done, storage)

    def arrived(count: int) -> None:
        """Report so many bytes more."""
        nonlocal done
        done += count
        progress(done, wanted.bytes)

    arrived(0)
    try:
        for remote in chosen:
            blob = storage / "blobs" / remote.key
            place = storage / "snapshots" / wanted.revision / remote.path
            with FileLock(locks / f"{remote.key}.lock"):
                if not place.is_file():
                    _transfer(wanted, remote, blob, arrived)
                    _link(blob, place)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoRoom(wanted.name, wanted.bytes - done, storage) from error
        raise


def _transfer(wanted: Download, remote: _Remote, blob: Path, arrived: Callable[[int], None]) -> None:
    """Download one file under its content's name; a partial one resumes, and a broken connection is retried."""
    if blob.is_file():
        return
    part, failures = _part(blob), 0
    part.touch()
    while (before := _length(part)) < remote.bytes:
        try:
            with explained(wanted.name):
                _receive(wanted, remote, part, arrived)
        except HubUnreachable:
            failures = 1 if _length(part) > before else failures + 1
            if failures > len(PAUSES):
                raise
            time.sleep(PAUSES[failures - 1])
    with part.open("rb+") as file:  # after a power cut a file can have its length before it has its content
        large = len(remote.key) == 64  # else the key is git's hash, of the size and then the content
        digest = hashlib.sha256() if large else hashlib.sha1(f"blob {remote.bytes}\0".encode(), usedforsecurity=False)
        while piece := file.read(CHUNK):
            digest.update(piece)
        os.fsync(file.fileno())
    if _length(part) != remote.bytes or remote.key != digest.hexdigest():
        part.unlink()
        raise DamagedDownload(name=wanted.name, file=remote.path)
    part.replace(blob)


def _receive(wanted: Download, remote: _Remote, part: Path, arrived: Callable[[int], None]) -> None:
    """Append what the hub sends to the part that is there.

    Raises:
        HubUnreachable: It ended early.
    """
    import huggingface_hub as client

    repository, _ = _split(wanted.name)
    url = client.hf_hub_url(repository, remote.path, revision=wanted.revision)
    before = _length(part)
    headers = {"Accept-Encoding": "identity", "Range": f"bytes={before}-"}
    if token := client.get_token():
        headers["Authorization"] = f"Bearer {token}"
    with client.get_session().stream("GET", url, headers=headers, timeout=TIMEOUT) as answer:
        client.hf_raise_for_status(answer)
        anew = answer.status_code != 206  # a server may send the whole file instead
        arrived(-before if anew else 0)
        with part.open("wb" if anew else "ab") as file:
            for piece in answer.iter_bytes(CHUNK):
                file.write(piece)
                arrived(len(piece))
    if _length(part) < remote.bytes:
        raise HubUnreachable(name=wanted.name, cause=f"{remote.path} ended early")


def _link(blob: Path, place: Path) -> None:
    """Show a file under its name in the snapshot."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        place.symlink_to(os.path.relpath(blob, place.parent))
    except FileExistsError:
        pass  # a link that led to nothing before
    except OSError:
        blob.replace(place)  # Windows without permission for links: the hub's client does the same
