"""What a LoRA file tells whoever gets it; and a version of it without chosen tags, to hand over in its place.

The file itself is never changed. A version that says less lies in `handover/` in the run's folder under the same name;
its tensors, and so the hash by which WebUIs and Civitai know it (AutoV3), are the same.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

from trainer.contract.errors import ExportError
from trainer.contract.files import atomic_write
from trainer.contract.ours import check_below, read_plain
from trainer.models.headers import read_header
from trainer.runs.folder import RunFolder

FOLDER = "handover"
TAGS = "ss_tag_frequency"
LARGEST = 1 << 32  # bytes of a LoRA file that is written again
# What else names something of the user's, in the order in which it is shown
NAMES = {
    "title": "modelspec.title",
    "trigger": "modelspec.trigger_phrase",
    "base_model": "ss_sd_model_name",
    "vae": "ss_vae_name",
    "images": "ss_num_train_images",
    "comment": "ss_training_comment",
}
EMPTY = ("", "None")


@dataclass(frozen=True)
class Told:
    """What a file's metadata tell: names by `NAMES` and "time"; tags of the captions, most frequent first."""

    names: dict[str, str]
    tags: dict[str, int]


def lora_of(run: RunFolder, file: str) -> Path:
    """A run's LoRA file by its name.

    Raises:
        ExportError: It has no such file.
        NotOurs: It is a link or nothing plain.
    """
    source = run.inside(file)
    if source.parent != run.path.resolve() or source.suffix != ".safetensors" or not source.is_file():
        raise no_such_lora(run, file, sorted(path.name for path in run.path.glob("*.safetensors")))
    return source


def no_such_lora(run: RunFolder, file: str, known: Collection[str]) -> ExportError:
    """Returns the error for whoever asks for a LoRA file that a run, which has the `known` ones, does not have."""
    hint = f"It has: {', '.join(known)}." if known else "It has none yet: choose “Save now”, or wait for its end."
    return ExportError(f"The run {run.path.name} has no LoRA file {file}.", hint=hint)


def for_others(run: RunFolder, file: str) -> Path:
    """The version of a LoRA file to hand over: without the tags that were struck, else the file itself.

    Raises:
        ExportError: The run has no such file.
        NotOurs: One of them is a link or nothing plain.
    """
    source = lora_of(run, file)
    check_below(run.path, PurePath(FOLDER, source.name))
    version = run.path / FOLDER / source.name
    made = version.is_file() and version.stat().st_mtime_ns >= source.stat().st_mtime_ns  # else of an earlier file
    return version if made else source


def told(path: Path) -> Told:
    """What this file tells.

    Raises:
        NotABaseModel: It is no safetensors file.
    """
    said = read_header(path).metadata
    names = {name: said[key] for name, key in NAMES.items() if said.get(key, "") not in EMPTY}
    begun = said.get("ss_training_started_at", "").partition(".")[0]
    if begun.isdecimal() and len(begun) < 12:
        names["time"] = time.strftime("%Y-%m-%d %H:%M", time.localtime(int(begun)))
    return Told(names, tags_in(said))


def tags_in(metadata: Mapping[str, str]) -> dict[str, int]:
    """The tags of captions in a file's metadata, most frequent first; none where they cannot be read."""
    try:
        counts: Counter[str] = Counter()
        for tags in json.loads(metadata.get(TAGS, "{}")).values():
            counts.update({str(tag): int(times) for tag, times in tags.items()})
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return dict(counts.most_common())


def strike(run: RunFolder, file: str, struck: Collection[str]) -> Path:
    """Make the version of a LoRA file that does not tell these tags; with none of them, the file itself is handed over.

    Returns:
        What is handed over from now on.

    Raises:
        ExportError: The run has no such file.
        NotABaseModel: It is no safetensors file.
        NotOurs: Something is a link or nothing plain.
        OSError: No room.
    """
    source = lora_of(run, file)
    check_below(run.path, PurePath(FOLDER, source.name))
    version = run.path / FOLDER / source.name
    kept = set(tags_in(read_header(source).metadata)).intersection(struck)
    if not kept:
        version.unlink(missing_ok=True)
        return source
    atomic_write(version, _without(read_plain(source, LARGEST), kept))
    return version


@lru_cache(maxsize=32)
def _digest(path: Path, _changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal; remembered until it changes."""
    return _digest(path, path.stat().st_mtime_ns)


def _without(data: bytes, struck: Collection[str]) -> bytes:
    """A safetensors file without these tags; the bytes of its tensors are the same."""
    start = 8 + int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8:start])
    said = header["__metadata__"]
    folders = json.loads(said[TAGS])
    fewer = {name: {tag: n for tag, n in tags.items() if tag not in struck} for name, tags in folders.items()}
    said[TAGS] = json.dumps(fewer, ensure_ascii=False)
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[start:]
