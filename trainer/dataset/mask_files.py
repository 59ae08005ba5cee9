"""Which image files are masks of others, by the names that people and other trainers give them."""

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import PurePosixPath

MASK = ".mask"  # before the suffix of a mask that is written here
ENDINGS = (MASK, "-masklabel")  # masks whatever lies beside them; the second is OneTrainer's
COMMON = ("_masklabel", "-mask", "_mask", " mask")  # the usual ones among those that are likely
LIKELY = (  # masks only where an image has that name without it
    re.compile(r"(.+?)[ ._-]*mask(?:s|label)?(?:[ ._-]?\d{1,2})?", re.IGNORECASE),
    re.compile(r"masks?(?:label)?[ ._-]+(.+)", re.IGNORECASE),
)
CONDITION = "-condlabel"  # OneTrainer's images for inpainting and control, neither trained nor masks
WORDS = r"(?:img|image|loss|alpha|train|training|subject|person|face|object|binary|label|segmentation|data|png)s?"
FOLDERS = re.compile(rf"_?(?:{WORDS}[ _-]?)?masks?(?:[ _-]?{WORDS})?")  # masks if one at least has an image's name
LIKELIHOOD = len(ENDINGS)  # the place of a name by `LIKELY`, after those that are sure
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
    folded = {key.lower(): key for key in sorted(known)}  # folders from Windows mix capitals
    owned = {name: _owner(name, known, folded) for name in every}
    owned |= _elsewhere([name for name in every if not owned[name] and _mask_folder(name)], every)
    used = {_mask_folder(name) for name, owner in owned.items() if owner} - {""}
    found = [name for name in every if owned[name] or _bare(name)[0] < LIKELIHOOD or _mask_folder(name) in used]
    masks: dict[str, str] = {}
    for name in sorted(found, key=lambda name: (bool(_mask_folder(name)), _bare(name)[0])):
        masks.setdefault(owned[name] or next(_owners(name)), name)
    taken = set(found)
    return [name for name in every if name not in taken], masks


def _owner(name: str, known: Set[str], folded: Mapping[str, str]) -> str:
    """The image that a file is the mask of, spelled as it is; empty if there is none."""
    likely = list(_owners(name))
    spelled = [one for one in likely if one in known] or [
        folded[one.lower()] for one in likely if one.lower() in folded
    ]
    return next((one for one in spelled if one not in (name, _stem(name))), "")


def _elsewhere(lost: Iterable[str], every: Iterable[str]) -> dict[str, str]:
    """The images of masks whose folder lies beside one that they are further down in: mask/a.png, img/10_ana/a.png."""
    called: dict[str, list[str]] = {}
    for name in every:
        if not _mask_folder(name):
            file = PurePosixPath(name.lower())
            for key in (file.name, file.stem):
                called.setdefault(key, []).append(name)
    found = {}
    for name in lost:
        above, slash, _ = _mask_folder(name).rpartition("/")
        bare = PurePosixPath(_bare(name)[1].lower()).name
        alike = [other for other in called.get(bare, ()) if other.startswith(above + slash)]
        if len(alike) == 1:
            found[name] = alike[0]
    return found


def _owners(name: str) -> Iterator[str]:
    """The images that a file would be the mask of, likeliest first; none if its name says nothing of a mask."""
    _, bare = _bare(name)
    if bare != _stem(name):
        yield bare
    folder = _mask_folder(name)
    if folder:
        above, _, _ = folder.rpartition("/")
        within = bare[len(folder) + 1 :]
        yield from ("/".join(part for part in (above, beside, within) if part) for beside in ("", *BESIDE))


def _bare(name: str) -> tuple[int, str]:
    """How surely a file's name says that it is a mask, 0 most, and its path without suffix and what says so."""
    folder, slash, stem = _stem(name).rpartition("/")
    for sure, ending in enumerate(ENDINGS):
        if stem.lower().endswith(ending) and len(stem) > len(ending):
            return sure, folder + slash + stem[: -len(ending)]
    for rule in LIKELY:
        if match := rule.fullmatch(stem):
            return LIKELIHOOD, folder + slash + match[1]
    return LIKELIHOOD + 1, _stem(name)


def _mask_folder(name: str) -> str:
    """The outermost folder for masks that a file lies in, by its path; empty if there is none."""
    parts = name.split("/")[:-1]
    place = next((place for place, part in enumerate(parts, start=1) if FOLDERS.fullmatch(part.lower())), 0)
    return "/".join(parts[:place])


def _stem(name: str) -> str:
    return name.rpartition(".")[0]
