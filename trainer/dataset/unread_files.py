"""Files of an image folder that nothing is done with, counted by what they are."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

from trainer.dataset.mask_files import CONDITION

KINDS = 5  # that are named, the rest is counted
READABLE = re.compile(r"\.[a-z0-9_-]{1,10}")
SUFFIXES = {  # of files that programs keep beside images for themselves
    *(".json", ".npz", ".xmp", ".aae", ".thm", ".pp3", ".dop", ".db", ".ini", ".lnk", ".url", ".md"),
}
NAMES = ("readme", "license")  # how the names begin of what describes a folder
ADVICE = {  # what can be done about such files
    (".txt", ".caption", ".cap"): "A caption is named after its image: a.png and a.txt, or a.png.txt.",
    (".csv", ".tsv", ".jsonl"): "A table of captions has columns called image and caption.",
    (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".cbz"): "Unpack archives to train on what they hold.",
    (".parquet", ".xlsx", ".xls", ".ods"): "Save tables as .csv with columns called image and caption.",
}
OTHERWISE = "Save those that are to be trained as .jpg, .png or .webp."


def unread(names: Iterable[str]) -> Counter[str]:
    """Returns how many of these files are of each kind, such as ".nef", without those of other programs."""
    return counted(name for name in names if not _aside(name))


def counted(names: Iterable[str]) -> Counter[str]:
    """Returns how many of these files are of each kind."""
    return Counter(map(_kind_of, names))


def in_words(kinds: Counter[str], verdict: str = "") -> str:
    """Returns such as "25 other files: 20 .nef, 5 .psd"; `verdict` is what is said of them before the colon."""
    total = kinds.total()
    shown = sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))[:KINDS]
    rest = total - sum(count for _, count in shown)
    listed = ", ".join(f"{count} {kind}" for kind, count in shown) + (f" and {rest} more" if rest else "")
    verb = f" {'is' if total == 1 else 'are'} {verdict}" if verdict else ""
    return f"{total} other file{'s' * (total != 1)}{verb}{': ' * bool(listed)}{listed}"


def advice(kinds: Counter[str]) -> str:
    """Returns what can be done about them."""
    said = [words for suffixes, words in ADVICE.items() if any(kind in kinds for kind in suffixes)]
    known = {suffix for suffixes in ADVICE for suffix in suffixes}
    return " ".join([*said, *([OTHERWISE] if kinds.keys() - known else [])])


def _kind_of(name: str) -> str:
    """Returns a file's kind: its suffix, where that is one."""
    path = PurePosixPath(name.lower())
    if path.stem.endswith(CONDITION):
        return f"{CONDITION}{path.suffix}"
    return path.suffix if READABLE.fullmatch(path.suffix) else "without a suffix"


def _aside(name: str) -> bool:
    path = PurePosixPath(name.lower())
    return path.suffix in SUFFIXES or path.name.startswith(NAMES)
