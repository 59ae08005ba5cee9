"""What is wrong with the captions of a data set, and their fixes."""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from trainer.contract.settings.config import TrainConfig
from trainer.contract.settings.dataset import DatasetSettings
from trainer.dataset.captions import CAPTION_VARIANTS, Item, tags_of, wildcards_of, with_choices, with_trigger
from trainer.dataset.clip_tokens import Reading, reading
from trainer.dataset.overlay import Entry
from trainer.doctor.cases import Sign
from trainer.doctor.prompt_syntax import without_syntax

CUT_SHOWN = 60  # letters of what is cut off that a finding shows
PIECES = 3  # of a caption's prompt syntax that are shown
SOME = 5  # captions from which on they are compared with one another
MOST = 0.6  # share of captions that makes an opening word a trigger word
ORDINARY = {  # words that open many captions without calling anything up
    *("a", "an", "the", "one", "two", "some", "photo", "picture", "image", "portrait", "close-up", "woman", "man"),
    *("girl", "boy", "person", "people", "cat", "dog", "1girl", "1boy", "solo", "no humans", "masterpiece"),
}
MEDIUM = (
    r"(?:oil |watercolou?r |acrylic |digital |pencil |ink |charcoal |pastel |vector |flat |concept )?"
    r"(?:painting|drawing|illustration|artwork|art|sketch|rendering|render|engraving|etching|woodcut|lithograph)"
)
KIND = (
    r"(?:anime|manga|cartoon|comic|comics|watercolou?r|pixel art|line ?art|impressionis[mt]\w*|expressionis[mt]\w*|"
    r"cubis[mt]\w*|surrealis[mt]\w*|pop art|art nouveau|art deco|ukiyo-e|low poly|cel shad\w+|3d render|cgi)"
)
OPENING = re.compile(rf"^(?:(?:an?|the) )?(?:{KIND} )?{MEDIUM} (?:of|showing|depicting) ", re.IGNORECASE)
MANNER = re.compile(
    rf",? *\b(?:(?:in|with) (?:an? |the )?(?:[\w-]+ ){{0,3}}style(?: of [^,.]+)?|in the style of [^,.]+"
    rf"|(?:[\w-]+ )?art style|(?:drawn|painted|illustrated|rendered) (?:by|in|as|with) [^,.]+|(?:art|artwork) by [^,.]+"
    rf"|in {KIND})\b",
    re.IGNORECASE,
)
TAG = re.compile(
    rf"(?:{KIND}|{MEDIUM}|(?:[\w-]+ ){{0,3}}style|traditional media|style of .+|by [\w. -]+)", re.IGNORECASE
)


def caption_signs(items: Sequence[Item], config: TrainConfig) -> list[Sign]:
    """Returns what of the captions would harm a training with these settings."""
    signs: list[Sign] = []
    for concept in sorted({item.concept for item in items}):
        rules = config.dataset.of_folder(concept)
        captioned = [item for item in items if item.concept == concept and item.caption]
        signs += [*_too_long(captioned, rules), *_of_prompts(captioned, rules)]
        if config.goal == "style":
            signs += _naming_the_style(captioned, rules)
        if len(captioned) >= SOME:
            opening = _opening(captioned, rules)
            signs += [*_without_trigger(captioned, rules, opening), *_in_all(captioned, opening)]
    return signs


def without_style(caption: str) -> str:
    """The caption without the words that name a style or a medium; itself if it has none."""
    plain = MANNER.sub("", OPENING.sub("", caption))
    tags = tags_of(plain)
    kept = [tag for tag in tags if not TAG.fullmatch(tag)]
    if kept != tags:
        plain = ", ".join(kept)
    return plain.strip(" ,") if plain != caption else caption


def _reworded(item: Item, reword: Callable[[str], str]) -> Callable[[Entry], Entry] | None:
    """Returns the fix of a caption, applied to its text at that time so that several fixes add up.

    None if it changes nothing, or would lose more: wildcards, further captions, or the whole text.
    """

    def helped(caption: str) -> str:
        """Returns the caption reworded, or unchanged where that would lose a wildcard or all."""
        fresh = reword(caption)
        return fresh if fresh and len(wildcards_of(fresh)) >= len(wildcards_of(caption)) else caption

    def fix(entry: Entry) -> Entry:
        """The entry with the caption reworded."""
        return replace(entry, text=helped(item.caption if entry.text is None else entry.text))

    return fix if not item.others and helped(item.caption) != item.caption else None


def _too_long(items: Sequence[Item], rules: DatasetSettings) -> Iterator[Sign]:
    """Captions over the token limit, including the trigger word."""

    def shortened(caption: str) -> str:
        """The caption up to where it is read."""
        read = _longest_reading(caption, rules)
        return read.read.rstrip(" ,") if read.cut else caption

    for item in items:
        read = _longest_reading(item.caption, rules)
        if read.cut:
            cut = read.cut if len(read.cut) <= CUT_SHOWN else f"{read.cut[:CUT_SHOWN].rstrip()}…"
            detail = f"{read.tokens} tokens, cut: “{cut}”"
            subject = f"{rules.caption_tokens} tokens"
            yield Sign("long_caption", item.path, subject, detail, fix=_reworded(item, shortened))


def _longest_reading(caption: str, rules: DatasetSettings) -> Reading:
    """How far the longest of the forms is read that a caption's wildcards give it."""
    seeds = range(CAPTION_VARIANTS) if wildcards_of(caption) else ()
    forms = [with_choices(caption, random.Random(seed)) for seed in seeds] or [caption]
    read = [reading(with_trigger(form, rules.trigger_word), rules.caption_tokens) for form in forms]
    return max(read, key=lambda one: one.tokens)


def _of_prompts(items: Sequence[Item], rules: DatasetSettings) -> list[Sign]:
    """Captions with weights, networks and the like, which a program that generates images would read as such."""
    found: dict[Path, tuple[Item, list[str]]] = {}
    for item in items:
        captions = (item.caption, *item.others)
        pieces = [piece for one in captions for piece in without_syntax(one, rules.trigger_word)[1]]
        if pieces:
            found[item.path] = item, pieces
    subject = f"{len(found)} caption{'s' * (len(found) != 1)}"
    plain = partial(_in_words, rules.trigger_word)
    return [
        Sign("prompt_syntax", path, subject, _quoted(pieces), fix=_reworded(item, plain))
        for path, (item, pieces) in found.items()
    ]


def _in_words(trigger_word: str, caption: str) -> str:
    return without_syntax(caption, trigger_word)[0]


def _quoted(pieces: Sequence[str]) -> str:
    """The first pieces of a caption, shortened."""
    short = [piece if len(piece) <= CUT_SHOWN else f"{piece[:CUT_SHOWN].rstrip()}…" for piece in pieces]
    return ", ".join(f"“{piece}”" for piece in short[:PIECES]) + (", …" if len(short) > PIECES else "")


def _naming_the_style(items: Sequence[Item], rules: DatasetSettings) -> Iterator[Sign]:
    for item in items:
        plain = without_style(item.caption)
        if item.caption not in (plain, rules.trigger_word):
            gone = " … ".join(_missing(item.caption, plain))
            yield Sign("style_in_caption", item.path, detail=f"“{gone}”", fix=_reworded(item, without_style))


def _missing(caption: str, plain: str) -> list[str]:
    """The runs of words that `plain` has no longer."""
    from difflib import SequenceMatcher

    before, after = caption.split(), plain.split()
    steps = SequenceMatcher(None, [word.strip(",") for word in before], [word.strip(",") for word in after], False)
    return [" ".join(before[a:b]).strip(",") for kind, a, b, _, _ in steps.get_opcodes() if kind != "equal" and b > a]


def _opening(items: Sequence[Item], rules: DatasetSettings) -> str:
    """The trigger word: the one that is set, else a rare tag or word that most captions begin with."""
    if rules.trigger_word:
        return rules.trigger_word
    for starts in (
        [tags_of(item.caption)[:1] for item in items if "," in item.caption],
        [item.caption.replace(",", " ").split()[:1] for item in items],
    ):
        counts = Counter(start[0] for start in starts if start and start[0].lower() not in ORDINARY)
        for word, count in counts.most_common(1):
            if count >= MOST * len(items):
                return word
    return ""


def _without_trigger(items: Sequence[Item], rules: DatasetSettings, trigger: str) -> Iterator[Sign]:
    """Captions without the word, where others have it."""
    word = re.compile(rf"(?<!\w){re.escape(trigger)}(?!\w)", re.IGNORECASE)
    lacking = [item for item in items if not word.search(item.caption)] if trigger else []
    if len(lacking) < len(items):
        code = "trigger_not_written" if rules.trigger_word else "trigger_missing"
        for item in lacking:
            yield Sign(code, item.path, trigger, fix=_reworded(item, lambda caption: with_trigger(caption, trigger)))


def _in_all(items: Sequence[Item], trigger: str) -> Iterator[Sign]:
    """Tags without which no caption is, but for the trigger word."""
    common = set.intersection(*({tag.lower() for tag in tags_of(item.caption)} for item in items))
    for tag in sorted(common - {tag.lower() for tag in tags_of(trigger)}):
        for item in items:
            yield Sign("tag_in_all", item.path, tag, fix=_reworded(item, partial(_without_tag, tag)))


def _without_tag(tag: str, caption: str) -> str:
    """The caption without a tag; empty if it is all there is."""
    return ", ".join(own for own in tags_of(caption) if own.lower() != tag)
