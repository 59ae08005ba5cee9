"""Which image files are masks of others, by the names that people and other trainers give them."""

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

MASK = ".mask"  # before the suffix of a mask that is written here
ENDINGS = (MASK, "-masklabel")  # masks whatever lies beside them; the second is OneTrainer's
LIKELY = ("_masklabel", "-mask", "_mask")  # masks only where an image has that name without it
CONDITION = "-condlabel"  # OneTrainer's images for inpainting and control, neither trained nor masks
FOLDERS = ("mask", "masks")  # their files are masks if one at least has an image's name
BESIDE = ("image", "images", "img", "imgs")  # folders for the images alone, where the masks have one too


def told_apart(names: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Returns the images among these files, and masks by the name of their image with or without its suffix.

    A mask whose image is missing is under the name that its image would have. Of several masks of an image the one
    beside it counts.

    Args:
        names: Files with an image's suffix, by path relative to their folder with forward slashes.
    """
    every = [name for name in names if not _stem(name).lower().endswith(CONDITION)]
    known = {key for name in every for key in (name, _stem(name))}
    owned = {name: next((one for one in _owners(name) if one in known), "") for name in every}
    used = {_mask_folder(name) for name, owner in owned.items() if owner} - {""}
    found = [name for name in every if owned[name] or _ending(name, ENDINGS) or _mask_folder(name) in used]
    masks: dict[str, str] = {}
    for name in sorted(found, key=lambda name: (bool(_mask_folder(name)), _rank(name))):
        masks.setdefault(owned[name] or next(_owners(name)), name)
    taken = set(found)
    return [name for name in every if name not in taken], masks


def _owners(name: str) -> Iterator[str]:
    """The images that a file would be the mask of, likeliest first; none if its name says nothing of a mask."""
    stem = _stem(name)
    ending = _ending(name, (*ENDINGS, *LIKELY))
    bare = stem[: len(stem) - len(ending)]
    if ending:
        yield bare
    folder = _mask_folder(name)
    if folder:
        above, _, _ = folder.rpartition("/")
        within = bare[len(folder) + 1 :]
        yield from ("/".join(part for part in (above, beside, within) if part) for beside in ("", *BESIDE))


def _ending(name: str, endings: Iterable[str]) -> str:
    """The first of these that a file's name ends in before its suffix, with something ahead of it."""
    stem = PurePosixPath(name).stem.lower()
    return next((one for one in endings if stem.endswith(one) and stem != one), "")


def _rank(name: str) -> int:
    """The place of a mask's ending among those that are known."""
    ending = _ending(name, (*ENDINGS, *LIKELY))
    return (*ENDINGS, *LIKELY, "").index(ending)


def _mask_folder(name: str) -> str:
    """The outermost folder for masks that a file lies in, by its path; empty if there is none."""
    parts = name.split("/")[:-1]
    place = next((place for place, part in enumerate(parts, start=1) if part.lower() in FOLDERS), 0)
    return "/".join(parts[:place])


def _stem(name: str) -> str:
    return name.rpartition(".")[0]
