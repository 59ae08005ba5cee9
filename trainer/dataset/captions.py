"""Captions: their tags, wildcards and trigger words, and the words a view of an image is shown with."""

import math
import random
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from trainer.contract.settings.dataset import DatasetSettings
from trainer.contract.settings.outputs import TagsTold

CAPTION_VARIANTS = 16  # forms of an image's captions that occur in a run; few enough to be encoded once
DEPTH = 8  # of wildcards within wildcards
WILDCARD = re.compile(r"\\.|\{((?:[^{}\\]|\\.)*)\}")  # one without others within; \{ is a brace and begins none
BAR = re.compile(r"(?<!\\)\|")
ESCAPED = re.compile(r"\\([{|}])")
LONGEST_TAG = 3  # words; what is longer is a phrase or a sentence
SENTENCE = re.compile(r"[.!?](?:\s|$)|[\u3002\uff01\uff1f]")
UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")  # no spaces between words
LETTERS = 4  # of a word in such a script, about
PRIVATE = re.compile(r"@\w|://|www\.|(?:\d[ ./-]?){6}")  # an address, a telephone number
COVERED = re.compile(r"\0+")


@dataclass(frozen=True)
class Item:
    """One image: its file, its captions, its size, and how it is shown."""

    path: Path
    caption: str  # the first of its captions, or ""
    width: int  # px, as a viewer shows it
    height: int
    name: str = ""  # path relative to its folder, with forward slashes: its key in the overlay
    others: tuple[str, ...] = ()  # further captions, shown in turn
    concept: int = 0  # number of its folder: 0 is the data set's own, then its concepts'
    weight: float = 1.0  # how often it is shown, relative to the others (kohya: repeats)
    focus: tuple[float, float] | None = None  # what the crop keeps in view: shares of width and height
    mask: Path | None = None  # gray image, white is learned

    @property
    def folder(self) -> Path:
        """The data set's folder that its name is relative to."""
        return self.path.absolute().parents[self.name.count("/")]


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
    """The caption's comma-separated tags shuffled by `seed`, the first `keep_tags` left in place."""
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
    """What names the image best: its first caption, with its trigger word and all tags in their order."""
    return _worded(item, 0, settings.of_folder(item.concept), seed)


def captions_of(item: Item, settings: DatasetSettings, seed: int) -> list[str]:
    """Every caption the image can be shown with, in turn, but for the empty one of views without a caption."""
    rules = settings.of_folder(item.concept)
    return [_form(item, variant, rules, seed) for variant in range(_variants(item, rules))]


class Shown(NamedTuple):
    """How a view of an image is shown."""

    mirrored: bool
    caption: str
    withheld: bool  # the image has a caption, which this view goes without


def caption_of_view(item: Item, place: int, epoch: int, settings: DatasetSettings, seed: int) -> Shown:
    """Returns how this view of the image is shown, random from (seed, epoch, image).

    Args:
        item: The image.
        place: Its number in the data set.
        epoch: How often it was shown before.
        settings: The data set's.
        seed: The run's.
    """
    rules = settings.of_folder(item.concept)
    rng = random.Random(f"{seed}-{place}-{epoch}")
    mirrored = rng.random() < 0.5 and rules.flip
    dropped = rng.random() < rules.caption_dropout
    caption = "" if dropped else _form(item, epoch % _variants(item, rules), rules, seed)
    withheld = not caption and any(_worded(item, variant, rules, seed) for variant in range(1 + len(item.others)))
    return Shown(mirrored, caption, withheld)


def _variants(item: Item, rules: DatasetSettings) -> int:
    """How many forms of the image's captions occur in a run: each caption as often as the others."""
    said = (item.caption, *item.others)
    varied = rules.shuffle_tags or rules.tag_dropout > 0 or any("{" in caption for caption in said)
    return len(said) * math.ceil(CAPTION_VARIANTS / len(said)) if varied else len(said)


def _form(item: Item, variant: int, rules: DatasetSettings, seed: int) -> str:
    """One form of the image's captions, thinned and shuffled as its rules say."""
    caption = _worded(item, variant, rules, seed)
    keep = max(rules.keep_tags, len(tags_of(rules.trigger_word)))
    rng = random.Random(f"{seed}-{item.concept}-{item.name}-{variant}")
    if rules.tag_dropout > 0:
        caption = thinned(caption, keep, rules.tag_dropout, rng)
    return shuffled(caption, keep, rng.getrandbits(32)) if rules.shuffle_tags else caption


def _worded(item: Item, variant: int, rules: DatasetSettings, seed: int) -> str:
    """One of the image's captions, its wildcards chosen, with the trigger word."""
    said = (item.caption, *item.others)
    rng = random.Random(f"{seed}-{item.concept}-{item.name}-{variant}-choice")
    return with_trigger(with_choices(said[variant % len(said)], rng), rules.trigger_word)


def told_tags(captions: list[str], triggers: Collection[str], which: TagsTold) -> dict[str, int]:
    """Returns the tags, with how often each occurs, that a LoRA file tells everybody who gets it.

    Args:
        captions: One of each image.
        triggers: The trigger words, which the file names anyway.
        which: "auto": tags of at most 3 words that two images share, without addresses, numbers to call, and those that
            hold a trigger word or occur only where one does, since these are likely names; "tags": all of at most 3
            words; "all": everything, sentences too.
    """
    if which == "none":
        return {}
    counts = tag_frequency(captions)
    if which == "all":
        return counts
    short = {tag: count for tag, count in counts.items() if _words(tag) <= LONGEST_TAG and not SENTENCE.search(tag)}
    if which == "tags":
        return short
    having: dict[str, set[int]] = {}
    for number, caption in enumerate(captions):
        for tag in tags_of(caption.lower()):
            having.setdefault(tag, set()).add(number)
    own = {part for trigger in triggers for part in tags_of(trigger.lower())}
    with_trigger = {number for part in own for number in having.get(part, ())}
    everywhere = len(with_trigger) == len(captions)  # then every tag occurs with it, and only what always does tells
    secret = {tag for tag, where in having.items() if (where == with_trigger if everywhere else where <= with_trigger)}
    named = [re.compile(rf"(?<!\w){re.escape(part)}(?!\w)") for part in own]
    secret |= {tag for tag in short if PRIVATE.search(tag) or any(name.search(tag) for name in named)}
    return {tag: count for tag, count in short.items() if tag in own or (len(having[tag]) > 1 and tag not in secret)}


def _words(tag: str) -> float:
    """About how many words a tag has, also in a script that puts no spaces between them."""
    return max(len(tag.split()), len(UNSPACED.findall(tag)) / LETTERS)


def tag_frequency(captions: list[str]) -> dict[str, int]:
    """How often each comma-separated tag occurs, most frequent first."""
    return with_tags({}, captions)


def with_tags(before: Mapping[str, int], more: Iterable[str], less: Iterable[str] = ()) -> dict[str, int]:
    """How often each tag occurs with `more` captions, and without those in which it was counted and that are gone."""
    counts = dict(before)
    for captions, number in ((more, 1), (less, -1)):
        for caption in captions:
            for tag in tags_of(caption.lower()):
                counts[tag] = counts.get(tag, 0) + number
    counts = {tag: count for tag, count in counts.items() if count}
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))
