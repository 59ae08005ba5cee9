"""The pictures of a data set with their captions, what is wrong with them, and which words a view is shown with."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from trainer.contract.errors import NoImages, NothingToTrain, UnreadableImage
from trainer.contract.settings.config import DatasetSettings
from trainer.dataset.caption_files import own_captions
from trainer.dataset.encodings import plain
from trainer.dataset.folders import Listing, Repeats, listing, repeats_of
from trainer.dataset.formats import picture_size
from trainer.dataset.overlay import Entry, read_overlay
from trainer.dataset.problems import Problem, mask_problems, repeats_told, unreadable, without_caption, without_picture

__all__ = [
    "Item",
    "Problem",
    "captions_of",
    "drawn",
    "first_caption",
    "look",
    "pictures_of",
    "scan",
    "shuffled",
    "tag_frequency",
    "tags_of",
    "wildcards_of",
    "with_choices",
    "with_entry",
    "with_trigger",
]
CAPTION_VARIANTS = 16  # forms of a picture's captions that occur in a run; few enough to be encoded once
DEPTH = 8  # of wildcards within wildcards
WILDCARD = re.compile(r"\\.|\{((?:[^{}\\]|\\.)*)\}")  # one without others within; \{ is a brace and begins none
BAR = re.compile(r"(?<!\\)\|")
ESCAPED = re.compile(r"\\([{|}])")
COVERED = re.compile(r"\0+")


@dataclass(frozen=True)
class Item:
    """One picture: its file, its captions, its size, and how it is shown."""

    path: Path
    caption: str  # the first of its captions, or ""
    width: int  # px, as a viewer shows it
    height: int
    name: str = ""  # path relative to its folder, with forward slashes: its key in the overlay
    others: tuple[str, ...] = ()  # further captions, shown in turn
    concept: int = 0  # number of its folder: 0 is the data set's own, then its concepts'
    weight: float = 1.0  # how often it is shown, relative to the others (kohya: repeats)
    focus: tuple[float, float] | None = None  # what the crop keeps in view: shares of width and height
    mask: Path | None = None  # grey picture, white is learnt


@dataclass(frozen=True)
class Survey:
    """A folder as it is: its pictures, which of them are left out or cannot be opened, and what was noticed."""

    items: list[Item]
    left_out: set[str]
    broken: list[UnreadableImage]
    problems: list[Problem]

    def trained(self, folder: Path) -> list[Item]:
        """The pictures that are not left out.

        Raises:
            NothingToTrain: There are none.
        """
        kept = [item for item in self.items if item.name not in self.left_out]
        if not kept:
            first = "; ".join(f"{error.path.name}: {error.cause}" for error in self.broken[:1])
            raise NothingToTrain(
                folder, f"{len(self.broken)} cannot be read ({first})" if first else "all are left out"
            )
        return kept


def pictures_of(settings: DatasetSettings) -> tuple[list[Item], list[Problem]]:
    """What is trained with these settings: the pictures of all their folders, and what was noticed.

    Raises:
        DatasetError: As `scan`, for one of the folders.
    """
    folders = [Path(settings.images), *(Path(concept.images) for concept in settings.concepts)]
    items: list[Item] = []
    problems: list[Problem] = []
    for number, folder in enumerate(folders):
        rules = settings.of_folder(number)
        weight = settings.concepts[number - 1].weight if number else 1.0
        apart = [other.resolve() for other in folders if other.resolve() != folder.resolve()]
        captions = Path(rules.captions) if rules.captions else None
        survey = _survey(folder, captions, rules.folder_repeats, apart)
        items += [replace(item, concept=number, weight=item.weight * weight) for item in survey.trained(folder)]
        problems += survey.problems
    return items, problems


def scan(
    folder: Path, captions: Path | None = None, *, folder_repeats: bool = True
) -> tuple[list[Item], list[Problem]]:
    """All pictures below `folder` that are trained, ordered by path, and what was noticed.

    What the file `captions` says of a picture goes before what lies in the folder. A picture that cannot be opened is
    a problem and left out.

    Args:
        folder: The picture folder.
        captions: What goes before it.
        folder_repeats: Whether a folder's name such as 10_ana woman gives repeats and words, as the setting of this
            name says.

    Raises:
        FolderMissing: No such folder.
        NoImages: No pictures.
        NothingToTrain: None that can be opened and is not left out.
        DatasetError: The file `captions` cannot be read.
    """
    survey = _survey(folder, captions, folder_repeats)
    return survey.trained(folder), survey.problems


def look(
    folder: Path, captions: Path | None = None, *, folder_repeats: bool = True
) -> tuple[list[Item], list[Problem]]:
    """The same for someone who looks on: with the pictures that the file `captions` leaves out.

    Raises:
        FolderMissing: No such folder.
        NoImages: No pictures.
        DatasetError: The file `captions` cannot be read.
    """
    survey = _survey(folder, captions, folder_repeats)
    return survey.items, survey.problems


def _survey(folder: Path, captions: Path | None, folder_repeats: bool = True, apart: Sequence[Path] = ()) -> Survey:
    """The pictures below a folder, with what the file `captions` says of them."""
    found = listing(folder, apart)
    if not found.pictures:
        raise NoImages(folder, len(found.files))
    entries = read_overlay(captions) if captions is not None else {}
    sizes, broken = _sizes(found)
    repeats = {name: repeats_of(folder, name) if folder_repeats else Repeats() for name in sizes}
    own, noticed = own_captions(found, [name for name in sizes if entries.get(name, Entry()).text is None])
    items = []
    for name, (width, height) in sizes.items():
        said = own.get(name) or (plain(repeats[name].words),)
        mask = found.masks.get(name.rpartition(".")[0])
        item = Item(
            found.pictures[name],
            said[0],
            width,
            height,
            name,
            others=said[1:],
            weight=float(repeats[name].count),
            mask=mask,
        )
        items.append(with_entry(item, entries[name], captions) if captions and name in entries else item)
    left_out = {name for name, entry in entries.items() if entry.left_out}
    shown = [item for item in items if item.name not in left_out]
    passed_over = {found.pictures.get(name) for name in left_out}
    broken = [error for error in broken if error.path not in passed_over]
    problems = [*found.problems, *unreadable(broken), *noticed]
    problems += without_caption([item.path for item in shown if not item.caption], len(shown))
    if captions is not None:
        problems += without_picture(entries.keys() - found.pictures.keys(), captions, folder)
    problems += _about_masks(found, shown)
    problems += repeats_told({one.folder: one.count for one in repeats.values() if one.folder})
    return Survey(items, left_out, broken, problems)


def with_entry(item: Item, entry: Entry, overlay: Path) -> Item:
    """The picture with what the overlay's entry says of it, which goes before what its folder says."""
    return replace(
        item,
        caption=item.caption if entry.text is None else entry.text,
        others=item.others if entry.text is None else (),
        focus=entry.focus or item.focus,
        mask=overlay.parent / entry.mask if entry.mask else item.mask,
    )


def _sizes(found: Listing) -> tuple[dict[str, tuple[int, int]], list[UnreadableImage]]:
    """Width and height of the pictures that can be opened, by name, and what is wrong with the others."""
    sizes: dict[str, tuple[int, int]] = {}
    broken = []
    for name, path in found.pictures.items():
        try:
            sizes[name] = picture_size(path)
        except UnreadableImage as error:
            broken.append(error)
    return sizes, broken


def _about_masks(found: Listing, items: Sequence[Item]) -> list[Problem]:
    stems = {name.rpartition(".")[0] for name in found.pictures}
    lost = [path for stem, path in found.masks.items() if stem not in stems]
    return mask_problems(lost, [item.path for item in items if item.mask and not item.mask.is_file()])


def tags_of(caption: str) -> list[str]:
    """The caption's comma-separated tags, in order; a wildcard {a, b|c} stays whole."""
    return [tag for tag in (part.strip() for part in _parts(caption)) if tag]


def wildcards_of(caption: str) -> list[str]:
    """Its wildcards {a|b}, the outermost of those that stand within one another."""
    covered = _covered(caption)
    return [caption[found.start() : found.end()] for found in COVERED.finditer(covered)]


def with_trigger(caption: str, trigger_word: str) -> str:
    """The caption with the trigger word first, once."""
    own = tags_of(trigger_word)
    if not own:
        return caption
    known = {tag.casefold() for tag in own}
    begins = caption[: len(trigger_word)].casefold() == trigger_word.casefold()
    if begins and caption[len(trigger_word) :][:1] in ("", " ", ","):
        first, *parts = _parts(caption[len(trigger_word) :])  # what follows it at once belongs to it
        return ",".join([trigger_word + first, *(part for part in parts if part.strip().casefold() not in known)])
    return ", ".join([trigger_word, *(tag for tag in tags_of(caption) if tag.casefold() not in known)])


def _parts(caption: str) -> list[str]:
    """What stands between the caption's commas, but for those within its wildcards."""
    commas = [place for place, sign in enumerate(_covered(caption)) if sign == ","]
    return [caption[begin + 1 : end] for begin, end in pairwise([-1, *commas, len(caption)])]


def _covered(caption: str) -> str:
    """The caption with every sign of its wildcards replaced by a zero, which no caption holds."""

    def _cover(found: re.Match[str]) -> str:
        if found[1] is None:  # an escaped sign
            return found[0]
        choices = len(BAR.split(found[1]))
        return "\0" * len(found[0]) if choices > 1 else f"({found[1]})"  # braces alone are no wildcard

    text = caption
    for _ in range(DEPTH if "{" in caption else 0):
        text = WILDCARD.sub(_cover, text)
    return text


def shuffled(caption: str, keep_tags: int, seed: int) -> str:
    """The caption's comma-separated tags in an order drawn from `seed`, the first `keep_tags` left in place."""
    tags = tags_of(caption)
    tail = tags[keep_tags:]
    random.Random(seed).shuffle(tail)
    return ", ".join(tags[:keep_tags] + tail)


def thinned(caption: str, keep_tags: int, dropout: float, rng: random.Random) -> str:
    """The caption without a share of its tags, but with its first `keep_tags`, and with one at least."""
    tags = tags_of(caption)
    kept = [tag for place, tag in enumerate(tags) if place < keep_tags or rng.random() >= dropout]
    return ", ".join(kept or tags[:1])


def with_choices(caption: str, rng: random.Random) -> str:
    r"""The caption with one choice of each wildcard {a|b}; others may stand within, and \{ \| \} mean themselves."""
    if "{" not in caption:
        return caption

    def _choose(found: re.Match[str]) -> str:
        if found[1] is None:  # an escaped sign
            return found[0]
        choices = BAR.split(found[1])
        return rng.choice(choices) if len(choices) > 1 else f"\\{{{found[1]}\\}}"  # braces alone are no wildcard

    text = caption
    for _ in range(DEPTH):
        text, before = WILDCARD.sub(_choose, text), text
        if text == before:
            break
    return " ".join(ESCAPED.sub(r"\1", text).split())


def first_caption(item: Item, settings: DatasetSettings, seed: int) -> str:
    """What names the picture best: its first caption, with its trigger word and all tags in their order."""
    return _worded(item, 0, settings.of_folder(item.concept), seed)


def captions_of(item: Item, settings: DatasetSettings, seed: int) -> list[str]:
    """Every caption the picture can be shown with, in turn, but for the empty one of views without a caption."""
    rules = settings.of_folder(item.concept)
    return [_form(item, variant, rules, seed) for variant in range(_variants(item, rules))]


def drawn(item: Item, place: int, epoch: int, settings: DatasetSettings, seed: int) -> tuple[bool, str]:
    """Whether this view of the picture is mirrored, and its caption: drawn from (seed, epoch, picture).

    Args:
        item: The picture.
        place: Its number in the data set.
        epoch: How often it was shown before.
        settings: The data set's.
        seed: The run's.
    """
    rules = settings.of_folder(item.concept)
    rng = random.Random(f"{seed}-{place}-{epoch}")
    mirrored = rng.random() < 0.5 and rules.flip
    dropped = rng.random() < rules.caption_dropout
    return mirrored, "" if dropped else _form(item, epoch % _variants(item, rules), rules, seed)


def _variants(item: Item, rules: DatasetSettings) -> int:
    """How many forms of the picture's captions occur in a run: each caption as often as the others."""
    said = (item.caption, *item.others)
    varied = rules.shuffle_tags or rules.tag_dropout > 0 or any("{" in caption for caption in said)
    return len(said) * math.ceil(CAPTION_VARIANTS / len(said)) if varied else len(said)


def _form(item: Item, variant: int, rules: DatasetSettings, seed: int) -> str:
    """One form of the picture's captions, thinned and shuffled as its rules say."""
    caption = _worded(item, variant, rules, seed)
    keep = max(rules.keep_tags, len(tags_of(rules.trigger_word)))
    rng = random.Random(f"{seed}-{item.concept}-{item.name}-{variant}")
    if rules.tag_dropout > 0:
        caption = thinned(caption, keep, rules.tag_dropout, rng)
    return shuffled(caption, keep, rng.getrandbits(32)) if rules.shuffle_tags else caption


def _worded(item: Item, variant: int, rules: DatasetSettings, seed: int) -> str:
    """One of the picture's captions, its wildcards chosen, with the trigger word."""
    said = (item.caption, *item.others)
    rng = random.Random(f"{seed}-{item.concept}-{item.name}-{variant}-choice")
    return with_trigger(with_choices(said[variant % len(said)], rng), rules.trigger_word)


def tag_frequency(captions: list[str]) -> dict[str, int]:
    """How often each comma-separated tag occurs, most frequent first."""
    counts: dict[str, int] = {}
    for caption in captions:
        for tag in tags_of(caption.lower()):
            counts[tag] = counts.get(tag, 0) + 1
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))
