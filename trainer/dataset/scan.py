"""The images of a data set with their captions and masks, and what is wrong with them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trainer.contract.settings.dataset import DatasetSettings
from trainer.dataset.caption_files import own_captions
from trainer.dataset.captions import Item
from trainer.dataset.encodings import plain
from trainer.dataset.errors import NoImages, NothingToTrain, UnreadableImage
from trainer.dataset.folders import Listing, Repeats, listing, repeats_of
from trainer.dataset.formats import image_size
from trainer.dataset.images import same_shape
from trainer.dataset.overlay import Entry, read_overlay
from trainer.dataset.problems import (
    Problem,
    base_of,
    masks_missing,
    masks_of_another_shape,
    masks_unreadable,
    masks_without_image,
    not_read,
    relative,
    repeats_reported,
    uncalled,
    unreadable,
    without_caption,
    without_image,
)
from trainer.dataset.unread_files import counted, in_words, unread

OF_SUBJECT = {"no_caption", "folder_repeats"}  # problems that are none of class images


@dataclass(frozen=True)
class Survey:
    """A folder's images, which of them are excluded or cannot be opened, and what was noticed."""

    items: list[Item]
    left_out: set[str]
    broken: list[UnreadableImage]
    problems: list[Problem]

    def trained(self, folder: Path) -> list[Item]:
        """Returns the images that are not excluded.

        Raises:
            NothingToTrain: There are none.
        """
        kept = [item for item in self.items if item.name not in self.left_out]
        if not kept:
            first = "; ".join(f"{relative(error.path, folder)}: {error.cause}" for error in self.broken[:1])
            why = f"{len(self.broken)} cannot be read ({first})" if first else "all are excluded"
            raise NothingToTrain(folder=folder, why=why)
        return kept


def images_of(
    settings: DatasetSettings, look_into: Callable[..., Survey] | None = None
) -> tuple[list[Item], list[Problem]]:
    """Returns the images of all folders that are trained, and what was noticed in these and in those of class images.

    Args:
        settings: The folders, and what of them is trained.
        look_into: Stands for `survey` where its answers are kept.

    Raises:
        DatasetError: One of the folders cannot be used; see `scan`.
    """
    folders = settings.folders
    base = base_of(folders)
    items: list[Item] = []
    problems: list[Problem] = []
    for number, folder in enumerate(folders):
        rules = settings.of_folder(number)
        apart = [other.resolve() for other in folders if other.resolve() != folder.resolve()]
        captions = Path(rules.captions) if rules.captions else None
        found = (look_into or survey)(folder, captions, rules.folder_repeats, apart, base)
        if number in settings.class_folders:
            problems += [problem for problem in found.problems if problem.code not in OF_SUBJECT]
            continue
        weight = settings.concepts[number - 1].weight if number else 1.0
        items += [replace(item, concept=number, weight=item.weight * weight) for item in found.trained(folder)]
        problems += [uncalled(problem, rules.trigger_word) for problem in found.problems]
    return items, problems


def scan(
    folder: Path, captions: Path | None = None, *, folder_repeats: bool = True
) -> tuple[list[Item], list[Problem]]:
    """Returns all images below `folder` that are trained, ordered by path, and what was noticed.

    An image that cannot be opened is a problem and skipped.

    Args:
        folder: The image folder.
        captions: File with captions that overrides those in the folder.
        folder_repeats: Whether a folder name such as 10_ana woman sets repeats and captions.

    Raises:
        FolderMissing: No such folder.
        NoImages: No images.
        NothingToTrain: None that can be opened and is not excluded.
        DatasetError: The file `captions` cannot be read.
    """
    found = survey(folder, captions, folder_repeats)
    return found.trained(folder), found.problems


def look(
    folder: Path, captions: Path | None = None, *, folder_repeats: bool = True
) -> tuple[list[Item], list[Problem]]:
    """Returns every image below `folder`, also those that the file `captions` excludes, and what was noticed.

    Raises:
        FolderMissing: No such folder.
        NoImages: No images.
        DatasetError: The file `captions` cannot be read.
    """
    found = survey(folder, captions, folder_repeats)
    return found.items, found.problems


def survey(
    folder: Path,
    captions: Path | None,
    folder_repeats: bool = True,
    apart: Sequence[Path] = (),
    base: Path | None = None,
) -> Survey:
    """Returns what is below a folder, and what the file `captions` says of it.

    Args:
        folder: The image folder.
        captions: File with captions that overrides those in the folder.
        folder_repeats: Whether a folder name such as 10_ana woman sets repeats and captions.
        apart: Folders within it that are not entered.
        base: Folder that problems name files relative to; None: the folder itself.

    Raises:
        FolderMissing: No such folder.
        NoImages: No images.
        DatasetError: The file `captions` cannot be read.
    """
    base = base or folder
    found = listing(folder, apart, base)
    if not found.images:
        raise NoImages(folder=folder, other_files=in_words(counted(found.files)))
    entries = read_overlay(captions) if captions is not None else {}
    sizes, broken = _sizes(found)
    repeats = {name: repeats_of(folder, name) if folder_repeats else Repeats() for name in sizes}
    own = own_captions(found, [name for name in sizes if entries.get(name, Entry()).text is None], base)
    items = []
    for name, (width, height) in sizes.items():
        said = own.of.get(name) or (plain(repeats[name].words),)
        item = Item(
            found.images[name],
            said[0],
            width,
            height,
            name,
            others=said[1:],
            weight=float(repeats[name].count),
            mask=found.mask_of(name),
        )
        items.append(with_entry(item, entries[name], captions) if captions and name in entries else item)
    left_out = {name for name, entry in entries.items() if entry.left_out}
    passed_over = {found.images.get(name) for name in left_out}
    broken = [error for error in broken if error.path not in passed_over]
    trained = [item for item in items if item.name not in left_out]
    problems = [*found.problems, *unreadable(broken), *own.problems, *_of_items(trained, base)]
    if captions is not None:
        problems += without_image(entries.keys() - found.images.keys(), captions, folder)
    problems += masks_without_image(found.lost_masks, base)
    problems += repeats_reported({one.folder: one.count for one in repeats.values() if one.folder})
    given = captions.absolute() if captions is not None else None
    idle = {name for name in found.others - own.files if found.files[name].absolute() != given}
    problems += not_read(unread(idle), folder, base)
    return Survey(items, left_out, broken, problems)


def _of_items(items: Sequence[Item], base: Path) -> list[Problem]:
    """What the images lack that are trained."""
    return [
        *without_caption([item.path for item in items if not item.caption], len(items), base),
        *masks_missing([item.path for item in items if item.mask and not item.mask.is_file()], base),
        *_unfit_masks(items, base),
    ]


def _unfit_masks(items: Sequence[Item], base: Path) -> list[Problem]:
    """Masks whose header cannot be read, or says that they have another shape than their images."""
    broken: list[tuple[Item, UnreadableImage]] = []
    another: list[tuple[Item, tuple[int, int]]] = []
    for item in items:
        if item.mask is None or not item.mask.is_file():
            continue
        try:
            size = image_size(item.mask)
        except UnreadableImage as error:
            broken.append((item, error))
        else:
            if not same_shape(*size, item.width, item.height):
                another.append((item, size))
    return [*masks_of_another_shape(another, base), *masks_unreadable(broken, base)]


def with_entry(item: Item, entry: Entry, overlay: Path) -> Item:
    """Returns the image with the overlay's entry, which overrides what its folder has."""
    return replace(
        item,
        caption=item.caption if entry.text is None else entry.text,
        others=item.others if entry.text is None else (),
        focus=entry.focus or item.focus,
        mask=overlay.parent / entry.mask if entry.mask else item.mask,
    )


def _sizes(found: Listing) -> tuple[dict[str, tuple[int, int]], list[UnreadableImage]]:
    """Width and height of the images that can be opened, by name, and what is wrong with the others."""
    sizes: dict[str, tuple[int, int]] = {}
    broken = []
    for name, path in found.images.items():
        try:
            sizes[name] = image_size(path)
        except UnreadableImage as error:
            broken.append(error)
    return sizes, broken
