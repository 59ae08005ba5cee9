"""Where things are on disk: the home folder, and paths as users write them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from trainer.contract.errors import InvalidSettings
from trainer.contract.files import LONGEST_NAME
from trainer.contract.pasted import path_of

CHECKOUT = Path(__file__).resolve().parents[2]
HOME = "ATELIER_HOME"  # the environment variable; a trainer gets its home by it
POCKET = CHECKOUT / "assets" / "pocket"


@dataclass(frozen=True)
class Home:
    """The folder that holds runs and caches: `--home`, else `ATELIER_HOME`, else the checkout."""

    root: Path

    @classmethod
    def find(cls, chosen: Path | None = None) -> Home:
        """The home the user chose, absolute."""
        return cls((chosen or path_of(os.environ.get(HOME) or str(CHECKOUT))).expanduser().resolve())

    @property
    def runs(self) -> Path:
        """One folder per training run."""
        return self.root / "runs"

    @property
    def cache(self) -> Path:
        """Encoded images and captions, named by content, and what the doctor measured; safe to delete."""
        return self.root / "cache"

    @property
    def temporary(self) -> Path:
        """Files needed for a while, such as uploads; for this user alone, and safe to delete."""
        return self.root / "temporary"

    @property
    def sets(self) -> Path:
        """Dropped images, a folder per set; beside them what was edited here, a folder per image folder."""
        return self.root / "datasets"

    @property
    def presets(self) -> Path:
        """The user's own presets; in the checkout they lie below the built-in ones."""
        return self.root / "presets" / "own"

    @property
    def projects(self) -> Path:
        """One folder per project, with what was entered."""
        return self.root / "projects"

    @property
    def queue_file(self) -> Path:
        """Runs that wait for the present one to end."""
        return self.root / "queue.json"


def user_path(written: str) -> Path:
    """Returns the path that was meant by what a user wrote or pasted, with ~ expanded.

    Raises:
        InvalidSettings: No file can have it, or it leads to another computer.
    """
    path = path_of(written)
    if not possible(path):
        raise InvalidSettings(f"No file can have the path {written[:80]!a}.", hint="Copy it from your file manager.")
    return path


def possible(path: Path) -> bool:
    """Whether a file can have this path."""
    try:
        return "\0" not in str(path) and all(len(os.fsencode(part)) <= LONGEST_NAME for part in path.parts)
    except ValueError:  # half a character, as JSON can write it
        return False
