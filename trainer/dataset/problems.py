"""Problems of a data set, in words for people."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from trainer.contract.wording import action, named, setting
from trainer.dataset.captions import Item
from trainer.dataset.errors import UnreadableImage
from trainer.dataset.unread_files import advice, in_words

NO_CAPTION = "no_caption"
NAMED = 5  # masks that a message names, the rest is counted


@dataclass(frozen=True)
class Problem:
    """Something about a data set worth knowing; training is possible."""

    code: str
    message: str
    hint: str
    images: tuple[Path, ...] = ()  # those it is about
    why: str = ""  # why it matters, in one sentence


def base_of(folders: Iterable[str | Path]) -> Path:
    """Returns the folder that messages about images name them relative to: of several the deepest that holds all."""
    with suppress(ValueError):  # on different drives
        return Path(os.path.commonpath([Path(folder).expanduser().absolute() for folder in folders]))
    return Path("/")


def relative(path: Path, base: Path) -> str:
    """Returns the file's path relative to `base` with forward slashes; readable whatever bytes it has."""
    path, base = path.absolute(), base.absolute()
    inside = path != base and path.is_relative_to(base)
    return os.fsencode(path.relative_to(base).as_posix() if inside else path).decode(errors="replace")


def listed(paths: Sequence[Path], base: Path = Path()) -> str:
    """Returns these files by their path relative to `base`: "day 1/a.png" or "day 1/a.png and 12 more"."""
    first = relative(paths[0], base)
    return first if len(paths) == 1 else f"{first} and {len(paths) - 1} more"


def unreadable(broken: Iterable[UnreadableImage]) -> list[Problem]:
    """Images that cannot be opened, those of one cause together."""
    causes: dict[str, list[UnreadableImage]] = {}
    for error in broken:
        causes.setdefault(error.cause, []).append(error)
    return [
        Problem(
            errors[0].code,
            f"The image {errors[0].path} cannot be read and is skipped: {cause}."
            if len(errors) == 1
            else f"{len(errors)} images cannot be read and are skipped (first: {errors[0].path}): {cause}.",
            errors[0].hint,
            tuple(error.path for error in errors),
            "What it shows is missing from the training.",
        )
        for cause, errors in causes.items()
    ]


def without_caption(bare: Sequence[Path], total: int, base: Path) -> list[Problem]:
    """Images without a caption."""
    if not bare:
        return []
    return [
        Problem(
            NO_CAPTION,
            f"{len(bare)} of {total} images have no caption (first: {relative(bare[0], base)}).",
            "They are trained on the trigger word alone; a .txt file of the same name is an image's caption.",
            tuple(bare),
            "The trigger word then stands for all that they show, not only for the subject.",
        )
    ]


def uncalled(problem: Problem, trigger_word: str) -> Problem:
    """Images without a caption, where no trigger word calls up what they show either."""
    if problem.code != NO_CAPTION or trigger_word:
        return problem
    hint = (
        f"No trigger word is set either, so no word would call up what they show: set "
        f"{setting('dataset.trigger_word')}, or caption them: {action('caption')}."
    )
    return replace(problem, hint=hint, why="What they show would come with every prompt, whatever it says.")


def without_image(names: Iterable[str], file: Path, folder: Path) -> list[Problem]:
    """Captions in a list for images that are not there."""
    gone = sorted(names)
    if not gone:
        return []
    return [
        Problem(
            "caption_without_picture",
            f"{file} has {len(gone)} captions for images that are not in {folder} (first: {gone[0]}).",
            "They are not used: check whether images were renamed or moved.",
            why="The images they were written for may be trained without a caption.",
        )
    ]


def masks_without_image(lost: Sequence[Path], base: Path) -> list[Problem]:
    """Masks without an image."""
    if not lost:
        return []
    return [
        Problem(
            "mask_without_picture",
            f"Masks without an image are not used: {listed(lost, base)}.",
            "The mask of name.png is name.mask.png, name-masklabel.png or masks/name.png: rename or remove it.",
            why="The image it was made for is trained as a whole.",
        )
    ]


def masks_missing(bare: Sequence[Path], base: Path) -> list[Problem]:
    """Images whose mask is gone."""
    if not bare:
        return []
    return [
        Problem(
            "mask_missing",
            f"Images whose mask is gone are trained as a whole: {listed(bare, base)}.",
            "Draw it again on the Dataset page.",
            tuple(bare),
            "What it masked out is learned too.",
        )
    ]


def masks_of_another_shape(found: Sequence[tuple[Item, tuple[int, int]]], base: Path) -> list[Problem]:
    """Masks that are not their images scaled; each comes with its own width and height in px."""
    if not found:
        return []
    said = [f"{_mask(item, base)} is {w} x {h} px, its image {item.width} x {item.height}" for item, (w, h) in found]
    return [
        Problem(
            "mask_shape",
            f"Masks of another shape than their images, which are skipped: {_several(said)}.",
            "Save the mask in the shape that the image has in a viewer, turned like it, or remove the mask.",
            tuple(item.path for item, _ in found),
            "Nobody can tell which part of the image such a mask means, so the image is not trained.",
        )
    ]


def masks_unreadable(broken: Sequence[tuple[Item, UnreadableImage]], base: Path) -> list[Problem]:
    """Masks that cannot be read."""
    if not broken:
        return []
    said = [f"{_mask(item, base)} ({error.cause})" for item, error in broken]
    return [
        Problem(
            "mask_unreadable",
            f"Masks that cannot be read; their images are skipped: {_several(said)}.",
            "Save the mask again, or remove it.",
            tuple(item.path for item, _ in broken),
            "What the image shows is missing from the training.",
        )
    ]


def masks_emptied(items: Sequence[Item], base: Path) -> list[Problem]:
    """Images with a mask of which nothing is left where they are cropped."""
    if not items:
        return []
    return [
        Problem(
            "mask_empty",
            f"Masks that leave nothing of their images to learn: {_several([_mask(item, base) for item in items])}.",
            "White is learned and black is not: draw the mask again, crop around what it shows, or exclude the image.",
            tuple(item.path for item in items),
            "These images teach the LoRA nothing, yet are counted among the views.",
        )
    ]


def _mask(item: Item, base: Path) -> str:
    """A mask by its path relative to `base`; one drawn here, or of transparency, by its image's."""
    image = relative(item.path, base)
    if item.mask is None:
        return f"{image} (transparent)"
    within = item.mask.absolute().is_relative_to(item.folder)
    return relative(item.mask, base) if within else f"that of {image}"


def _several(said: Sequence[str]) -> str:
    more = len(said) - NAMED
    return ", ".join(said[:NAMED]) + (f" and {more} more" if more > 0 else "")


def repeats_reported(shares: dict[str, int]) -> list[Problem]:
    """Folders whose names set repeats."""
    if not shares:
        return []
    return [
        Problem(
            "folder_repeats",
            f"Folder names set repeats, as in kohya_ss: {', '.join(shares)}.",
            f"Only their ratio counts; {named('dataset.views')} sets how often in all. If the numbers mean something "
            f"else, turn {named('dataset.folder_repeats')} off.",
            why="A number that does not mean repeats makes some images count far more than others.",
        )
    ]


def not_read(kinds: Counter[str], folder: Path, base: Path) -> list[Problem]:
    """Files of a folder that are neither images nor captions nor masks, by their kinds."""
    if not kinds:
        return []
    where = "" if folder.absolute() == base.absolute() else f"In {relative(folder, base)}: "
    return [
        Problem(
            "unread_files",
            f"{where}{in_words(kinds, 'not read')}.",
            advice(kinds),
            why="What they show or say is missing from the training.",
        )
    ]
