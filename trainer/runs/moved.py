"""Where a run's images, base model and VAE are now, if they were moved: `moved.json` beside its settings.

The settings themselves are never edited. What belongs to the program is found again by itself: built-in files below the
checkout, dropped images and edits below the home, wherever those are now.
"""

import json
from collections.abc import Mapping
from pathlib import Path, PurePath

from trainer.contract.files import atomic_write
from trainer.contract.home import CHECKOUT, Home
from trainer.contract.ours import check, read_plain
from trainer.contract.settings.config import TrainConfig, paths_of, with_paths
from trainer.contract.wording import action, named
from trainer.models.lookup import located
from trainer.runs.errors import InputsMissing
from trainer.runs.workfolder import UNUSABLE

MOVED = "moved.json"
OF_HOME, OF_CHECKOUT = ("datasets", "runs"), ("assets",)  # folders whose files move with the program
# What says where it is now; without them a LoRA to continue from, which only a run's very first step reads
FLAGS = {
    "dataset.images": "--images DIR",
    "model.base_model": "--base-model PATH",
    "model.vae": "--vae PATH",
    "dataset.captions": "--moved OLD NEW",
    "dataset.concepts": "--moved OLD NEW",
}


def recorded(file: Path) -> dict[str, str]:
    """Returns where things are now, by their path in the settings; none where the file is missing or damaged.

    Raises:
        NotOurs: It is no plain file.
    """
    check(file)
    try:
        moved = json.loads(read_plain(file))["moved"]
        return {str(old): str(new) for old, new in moved.items()}
    except (*UNUSABLE, AttributeError):
        return {}


def record(file: Path, moved: Mapping[str, str]) -> None:
    """Write down where things are now."""
    atomic_write(file, json.dumps({"v": 1, "moved": moved}, indent=1).encode())


def present(config: TrainConfig, moved: Mapping[str, str], home: Home) -> TrainConfig:
    """The settings with every path as it is now."""
    return with_paths(config, lambda _place, path: moved.get(path) or _with_the_program(path, home))


def missing(config: TrainConfig) -> list[tuple[str, str]]:
    """Returns what a run needs and does not find, as setting and path; not what lay within one of these, as `reg`."""
    absent = []
    for place, path in paths_of(config):
        found = located(path) if place == "model.base_model" else Path(path)
        if place in FLAGS and found is not None and not found.exists():
            absent.append((place, path))
    gone = {PurePath(path) for _, path in absent}
    return [(place, path) for place, path in absent if gone.isdisjoint(PurePath(path).parents)]


def require(config: TrainConfig, name: str) -> None:
    """Refuse to begin where something is missing.

    Args:
        config: The settings as they are now.
        name: Of the run.

    Raises:
        InputsMissing: It names all that is.
    """
    absent = missing(config)
    if absent:
        seen = "; ".join(f"{named(place)} = {path}" for place, path in absent)
        flags = dict.fromkeys(FLAGS[place] for place, _ in absent)
        raise InputsMissing(seen=seen, resume=action("resume", " ".join([name, *flags])))


def _with_the_program(path: str, home: Home) -> str:
    """The path, or where it is below today's home or checkout if it lay in one that was moved."""
    if not PurePath(path).is_absolute() or Path(path).exists():
        return path
    parts = PurePath(path).parts
    for root, own in ((home.root, OF_HOME), (CHECKOUT, OF_CHECKOUT)):
        for place, part in enumerate(parts):
            if part in own and (found := root.joinpath(*parts[place:])).exists():
                return str(found)
    return path
