r"""What stands in captions for programs that generate images, and is plain text to the text encoder.

Captions that were once prompts have weights `(hat:1.3)`, `((hat))`, `[hat]`, `{hat}`, `1.3::hat::`, escapes `\(`,
networks `<lora:x:0.6>`, `BREAK`, or all settings of an image. Wildcards such as {a|b} are none of it: a training makes
the choice for each view.
"""

import re
from collections.abc import Callable
from functools import partial

Meaning = str | Callable[[re.Match[str]], str]
Rule = tuple[re.Pattern[str], Meaning]  # what to find, and what it means

DEPTH = 8  # of brackets within brackets
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
LONGEST = 5000  # letters of a caption that is looked at: some rules take the square of them in time
STRONGEST = 5.0  # a number above that is no weight
# What is put aside meanwhile, each as a control character, which no caption holds
OWN, OPEN, CLOSE = "\x01", "\x02", "\x03"
ESCAPED = {"(": "\x04", ")": "\x05"}
WILDCARD = re.compile(r"(?<!\\)\{([^{}]*\|[^{}]*)\}")
FLAGS = r"ar|aspect|version|niji|stylize|style|quality|chaos|seed|iw|no|[vsqcwhdln](?=\s+\d)"  # Midjourney, sd-scripts
SPECIAL = re.compile(r"[()\[\]{}<>\\:]|__|BREAK|AND")  # what makes a trigger word look like syntax
FACE = r"(?<![:;=])"  # a bracket after these is part of :( or =[
LETTER = r"[^\W\d_]"
QUOTING = re.compile(  # what comes before words that an image shows
    r"(?:\b(?:words?|text|letters|says?|saying|reads?|reading|signs?|label|labell?ed|titled?|called)|[\"'“])[\s:,]*$",
    re.IGNORECASE,
)


def _weighted(found: re.Match[str]) -> str:
    """The words of (hat:1.3), none of (hat:0); a ratio, a time of day or a verse stays as it is."""
    words, number = found[1], found[2]
    ratio = re.search(r"\d\s*$", words) and ("." not in number or re.search(r"(?<!\d)1$", words))
    if ratio or not re.search(r"[^\d\s.,:/-]", words) or abs(float(number)) > STRONGEST:
        return found[0]
    return words if float(number) > 0 else ""


def _unbracketed(found: re.Match[str]) -> str:
    """The words of [hat]; a number such as [1] stays as it is."""
    return found[1] if re.search(LETTER, found[1]) else found[0]


def _separator(found: re.Match[str]) -> str:
    """A comma for BREAK, unless it stands among capitals or is what an image shows."""
    return found[0] if _is_shown(found) else ","


def _both(found: re.Match[str]) -> str:
    """The word and for AND, unless it stands among capitals or is what an image shows."""
    return found[0] if _is_shown(found) else "and"


def _is_shown(found: re.Match[str]) -> bool:
    before, after = found.string[: found.start()], found.string[found.end() :]
    capitals = re.search(r"\b[A-Z]{2,}\s+$", before) or re.match(r"\s+[A-Z]{2,}\b", after)
    return bool(capitals or QUOTING.search(before))


def _choice(found: re.Match[str]) -> str:
    """A wildcard of what takes turns while an image is generated: [cow|horse], [cow:horse:0.5]."""
    return f"{OPEN}{'|'.join(part.strip() for part in re.split('[|:]', found[1]))}{CLOSE}"


SURE: tuple[Rule, ...] = (
    (re.compile(r"\b(?:Negative prompt:|Steps: \d+, (?:Sampler|Size|Seed|CFG|Schedule|Model)\b).*"), ""),  # A1111
    (re.compile(rf"\s--(?:{FLAGS})\s+[^\s,]+"), ""),
    (re.compile(r"<(?:lora|lyco|locon|loha|lokr|hypernet|hypernetwork|embed|embedding|segment):[^<>]*>"), ""),
    (re.compile(r"\bembedding:[\w./-]+"), ""),
    (re.compile(r"\\+([()])(?!\S{0,5}\)/)"), lambda found: ESCAPED[found[1]]),  # but for \(^o^)/
    (re.compile(r"\\+[\[\]]"), ""),
    (re.compile(rf"(?<=[{OPEN}|])\s*(?:{NUMBER}::|\d+(?:-\d+)?\$\$)"), ""),  # Dynamic Prompts: {0.5::a|b}, {2$$a|b}
    (re.compile(rf"{FACE}\({{2,}}([^()]*?{LETTER}[^()]*?)(?::{NUMBER})?\){{2,}}"), r"\1"),  # ((hat)), ((hat:1.3))
    (re.compile(rf"\(([^()]+):({NUMBER})\s*\)"), _weighted),
    (re.compile(rf"(?<![\w:.]){NUMBER}::((?:(?!::).)+?)::"), r"\1"),  # NovelAI: 1.3::hat::
    (re.compile(r"\(([^()]+)\)(?:\++|\d\.\d+)(?=[\s,.]|$)"), r"\1"),  # InvokeAI: (hat)++, (hat)1.3
    (re.compile(rf"(?<={LETTER}{{2}})\s?:[0-2]\.\d+(?=\s*(?:,|$|AND\b))"), ""),  # hat:1.3, its brackets are gone
    (re.compile(r"\[([^\[\]:|]+)::\s*\d*\.?\d+\s*\]"), r"\1"),  # [hat::0.5]: until half of the steps
    (re.compile(r"\[:?([^\[\]:|]+):\s*\d*\.?\d+\s*\]"), r"\1"),  # [hat:0.5]: from then on
    (re.compile(r"\[([^\[\]:|]+:[^\[\]:|]+):\s*\d*\.?\d+\s*\]"), _choice),
    (re.compile(rf"{FACE}\[([^\[\]:|]+(?:\|[^\[\]:|]+)+)\]"), _choice),
    (re.compile(rf"{FACE}\[([^\[\]|:][^\[\]|]*)(?<!:)\]"), _unbracketed),
    (re.compile(rf"{FACE}(?<!\\)\{{([^{{}}|]*{LETTER}[^{{}}|]*)\}}"), r"\1"),
    (re.compile(rf"(?<!\w)__([\w ./-]*{LETTER}[\w ./-]*?)__(?!\w)"), lambda found: found[1].replace("_", " ")),
    (re.compile(r"(?<!\w)(?:BREAK|ADDCOMM|ADDROW|ADDCOL|ADDBASE)(?!\w)"), _separator),
    (re.compile(r"(?<=\s)AND(?=\s)"), _both),
)
LIKELY: tuple[Rule, ...] = (  # syntax where there is other syntax, else what somebody wrote
    (re.compile(rf"\(([^()]+):\s+({NUMBER})\s*\)"), _weighted),
    (re.compile(rf"((?:^|,)\s*)\(([^()]*{LETTER}[^()]*)\)(?=\s*(?:,|$))"), r"\1\2"),  # a tag as a whole
)


def without_syntax(caption: str, trigger_word: str = "") -> tuple[str, list[str]]:
    """Returns the caption in the words that its prompt syntax means, and the pieces of that syntax.

    Without any, and where it is longer than any prompt, it is returned as it is. Syntax in the trigger word stays.
    """
    if len(caption) > LONGEST:
        return caption, []
    own = trigger_word if SPECIAL.search(trigger_word) else ""
    text = caption.replace("[trigger]", trigger_word)  # as in ai-toolkit
    pieces = ["[trigger]"] if text != caption else []
    text = text.replace(own, OWN) if own else text
    for _ in range(DEPTH):
        before, text = text, WILDCARD.sub(rf"{OPEN}\1{CLOSE}", text)
        text = _applied(text, SURE, pieces)
        if text == before and pieces:
            text = _applied(text, LIKELY, pieces)
        if text == before:
            break
    if not pieces:
        return caption, []
    text = re.sub(r"\s*,(?:\s*,)+", ",", " ".join(text.split())).replace(" ,", ",").strip(" ,")
    written = [piece for piece in dict.fromkeys(_restored(one, own, "\\") for one in pieces) if piece in caption]
    return _restored(text, own, ""), written or [caption]


def _applied(text: str, rules: tuple[Rule, ...], pieces: list[str]) -> str:
    """The text after each of the rules; what they changed is added to the pieces."""
    for pattern, meaning in rules:
        text = pattern.sub(partial(_meant, meaning, pieces), text)
    return text


def _meant(meaning: Meaning, pieces: list[str], found: re.Match[str]) -> str:
    """What a rule makes of one piece, which is noted if that is something else."""
    words = meaning(found) if callable(meaning) else found.expand(meaning)
    if words != found[0]:
        pieces.append(found[0].strip(" ,"))
    return words


def _restored(text: str, own: str, escape: str) -> str:
    """The text with what was put aside, escaped signs with `escape` ahead of them."""
    marks = {OWN: own, OPEN: "{", CLOSE: "}", **{mark: escape + sign for sign, mark in ESCAPED.items()}}
    return "".join(marks.get(sign, sign) for sign in text)
