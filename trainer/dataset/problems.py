"""What is worth knowing about a data set, in words for people."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.contract.wording import named
from trainer.dataset.errors import UnreadableImage


@dataclass(frozen=True)
class Problem:
    """Something about a data set worth knowing; training can go on."""

    code: str
    message: str
    hint: str
    images: tuple[Path, ...] = ()  # those it is about
    why: str = ""  # why it matters, in one sentence


def listed(paths: Sequence[Path]) -> str:
    """These files by name, as in "a.png" and "a.png and 12 more"; readable whatever bytes the name holds."""
    first = os.fsencode(paths[0].name).decode(errors="replace")
    return first if len(paths) == 1 else f"{first} and {len(paths) - 1} more"


def unreadable(broken: Iterable[UnreadableImage]) -> list[Problem]:
    """Images that cannot be opened, those of one cause together."""
    causes: dict[str, list[UnreadableImage]] = {}
    for error in broken:
        causes.setdefault(error.cause, []).append(error)
    return [
        Problem(
            errors[0].code,
            f"The image {errors[0].path} cannot be read and is left out: {cause}."
            if len(errors) == 1
            else f"{len(errors)} images cannot be read and are left out (first: {errors[0].path}): {cause}.",
            errors[0].hint,
            tuple(error.path for error in errors),
            "What it shows is missing from the training.",
        )
        for cause, errors in causes.items()
    ]


def without_caption(bare: Sequence[Path], total: int) -> list[Problem]:
    """Images of which nothing is said."""
    if not bare:
        return []
    return [
        Problem(
            "no_caption",
            f"{len(bare)} of {total} images have no caption (first: {bare[0].name}).",
            "They are trained on the trigger word alone; a .txt file of the same name is an image's caption.",
            tuple(bare),
            "All that they show, and not only what is meant, comes to belong to the trigger word.",
        )
    ]


def without_image(names: Iterable[str], file: Path, folder: Path) -> list[Problem]:
    """Captions in a list for images that are not there."""
    gone = sorted(names)
    if not gone:
        return []
    return [
        Problem(
            "caption_without_picture",
            f"{file} has {len(gone)} captions for images that are not in {folder} (first: {gone[0]}).",
            "They are not used; check whether images were renamed or moved.",
            why="The images they were written for may be trained without a caption.",
        )
    ]


def mask_problems(lost: Sequence[Path], missing: Sequence[Path]) -> list[Problem]:
    """Masks without an image, and images whose mask is gone."""
    problems = []
    if lost:
        problems.append(
            Problem(
                "mask_without_picture",
                f"Masks without an image are not used: {listed(lost)}.",
                "name.mask.png is the mask of name.png; rename it, or take it out.",
                why="The image it was made for is trained as a whole.",
            )
        )
    if missing:
        problems.append(
            Problem(
                "mask_missing",
                f"Images whose mask is gone are trained as a whole: {listed(missing)}.",
                "Draw it again on the Dataset page.",
                tuple(missing),
                "What the mask kept out is learnt too.",
            )
        )
    return problems


def repeats_told(shares: dict[str, int]) -> list[Problem]:
    """Folders that say by their names how often their images are shown."""
    if not shares:
        return []
    return [
        Problem(
            "folder_repeats",
            f"Folders are named as in kohya's tools, and their images shown in that proportion: {', '.join(shares)}.",
            f"If the numbers mean something else, set {named('dataset.folder_repeats')} to false.",
            why="A number that is no number of repeats would have some images shown far more often than others.",
        )
    ]
