"""Export of a data set: the trained images of a folder with their captions, for any other program."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path, PurePosixPath

import tomlkit

from trainer.contract.errors import FileExists
from trainer.contract.files import atomic_write, sync_folder
from trainer.contract.home import Home
from trainer.dataset.captions import Item
from trainer.dataset.errors import DatasetError
from trainer.dataset.overlay import existing_overlay
from trainer.dataset.scan import scan


def export(
    home: Home,
    folder: Path,
    target: Path,
    progress: Callable[[int, int], None] | None = None,
    *,
    folder_repeats: bool = True,
) -> int:
    """Copy the images that are trained, byte for byte, each with its caption beside it; returns how many.

    Captions are the overlay's, else the images' own, in UTF-8. Images with several captions are in a captions.toml,
    since a .txt file is one caption. Of two images that differ only in their suffix, which other programs would give
    one caption, the second gets another name. The new folder appears whole or not at all.

    Args:
        home: Where the overlay is.
        folder: The image folder, which stays as it is.
        target: The new folder; it must not be there yet, or be empty.
        progress: Called with the images copied and the total.
        folder_repeats: Whether a folder name such as 10_ana woman is a caption.

    Raises:
        FileExists: There is something at `target`.
        NothingToTrain: Every image is excluded, or cannot be opened.
        DatasetError: The folder cannot be read, or `target` lies within it.
    """
    source, goal = folder.expanduser().resolve(), target.expanduser().resolve()
    if goal.is_relative_to(source):
        raise DatasetError(
            f"{goal} is inside the image folder {source}, which is only read.",
            hint="Choose a folder outside it.",
        )
    if goal.exists() and not (goal.is_dir() and not any(goal.iterdir())):
        raise FileExists(path=goal)
    trained, _ = scan(source, existing_overlay(home, source), folder_repeats=folder_repeats)
    goal.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=goal.parent, prefix=f".{goal.name}.", suffix=".part") as made:
        fresh = Path(made) / goal.name
        fresh.mkdir()
        several: dict[str, list[str]] = {}
        for number, (item, name) in enumerate(zip(trained, _names(trained), strict=True), start=1):
            captions = _copy(item, fresh / name)
            if len(captions) > 1:
                several[name] = captions
            if progress:
                progress(number, len(trained))
        if several:
            atomic_write(fresh / "captions.toml", tomlkit.dumps(several).encode())
        if goal.exists():
            goal.rmdir()  # empty, or this fails and nothing is lost
        fresh.replace(goal)
    sync_folder(goal.parent)
    return len(trained)


def _names(items: Sequence[Item]) -> list[str]:
    """A name for each image, its own unless another differs in its suffix alone."""
    taken = {_stem(item.name) for item in items}
    seen: set[str] = set()
    names = []
    for item in items:
        path = PurePosixPath(item.name)
        tried = (path.with_stem(f"{path.stem}-{number}").as_posix() for number in count(2))
        name = next(name for name in tried if _stem(name) not in taken) if _stem(item.name) in seen else item.name
        taken.add(_stem(name))
        seen.add(_stem(name))
        names.append(name)
    return names


def _stem(name: str) -> str:
    """What the files beside an image begin with, on disks that ignore case too."""
    return name.rpartition(".")[0].casefold()


def _copy(item: Item, target: Path) -> list[str]:
    """The image, and beside it what it is trained with: its caption and its mask; returns its captions."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(item.path, target)
    captions = [caption for caption in (item.caption, *item.others) if caption]
    if len(captions) == 1:
        atomic_write(target.with_suffix(".txt"), captions[0].encode())
    if item.mask is not None and item.mask.is_file():
        shutil.copy2(item.mask, target.with_suffix(".mask.png"))
    return captions
