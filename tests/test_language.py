"""The product's texts use the field's words: phrases of its former dialect are listed here and found nowhere.

`python tests/test_language.py` prints how often each is found, with `all` also where.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
CODE = [ROOT / "launch.py", *sorted((ROOT / "trainer").rglob("*.py")), *sorted((ROOT / "app").rglob("*.py"))]
RECIPE = sorted((ROOT / "assets" / "pocket" / "build").glob("*.py"))
DOCS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "assets").rglob("*.md"))]
CATALOG = ROOT / "assets" / "i18n" / "en.json"

IMAGES = "(?:pictures?|images?|previews?|prompts?)"
DRAW = "dr[ae]w(?:s|n|ing)?"
BRITISH = (
    "behaviour|colour|favour|grey|honour|labelled|licence|neighbour|"
    "initialis|normalis|optimis|organis|quantis|recognis|summaris|serialis"
)
# What is not said, as a regular expression from the beginning of a word on, and what is said instead
PHRASES = {
    r"what shall it learn": "What are you training?",
    r"computed (?:twice|again)": "gradient checkpointing; recomputed",
    r"in batches of (?:\S+ ){1,3}added up|gradients? added up": "gradient accumulation",
    r"held in (?:\S+ ){0,2}bits|in (?:8|4) bits": "quantized to 8-bit",
    r"streamed from": "offloaded to system RAM",
    rf"{DRAW} (?:the |its )?(?:\w+ )?{IMAGES}\b|{IMAGES} (?:(?:that|which|is|are|be|was|were) )*{DRAW}\b": "generate",
    rf"{DRAW} (?:what|again|anew|first|by the base)\b": "generate; rendered again",
    r"(?:to be|is|are) kept at|must stay as it": "class images for prior preservation",
    r"overdoes|take one before": "overtrained; pick an earlier one",
    r"tak(?:es?|en) (?:(?:it|them|this|the last change) )?back\b": "revert; undo",
    r"do not train\b(?! on)": "exclude",
    r"(?:tak(?:es?|en|ing)|took) over\b": "import; copy",
    r"giv(?:es?|en|ing) away": "share; export",
    r"sign of life": "not responding since",
    r"beyond what the text encoder": "over the token limit",
    r"go(?:es)? before (?:it|them|the|both|everything|all)\b": "override",
    r"how firmly": "weight",
    r"memory of the (?:squared )?gradient": "first and second moment decay (β1, β2)",
    r"text layer to read|layer counted from the end": "CLIP skip",
    r"none of the formats|(?:that|what|which|it) (?:is|are) (?-i:none)\b": "unsupported; not a …; NaN or infinity",
    r"does not give this program": "not available",
    r"letters or more|has \S+ letters|\d letters": "characters",
    rf"leave (?:it|these|the others) out\b|{IMAGES} (?:that )?(?:is|are) left out": "exclude",
    r"(?:is|are) (?:an)?others? now": "has changed",
    r"lettered|cut short": "watermarked; truncated",
    r"mend(?:s|ed|ing)?\b": "fix",
    r"gone on with|go(?:es)? on\b|went on\b|going on (?:from|with)": "resume; continue",
    r"g[ia]v(?:e|es|en|ing) back": "return; free",
    r"(?:is|are|was|were|be|been|being|not) told\b(?! apart)|told (?:in|by|of|as|when|where|so|once)\b": "report",
    r"telling\b|tells? (?:of|so)\b": "report",
    r"prov(?:e|es|ed)\b|proofs?\b": "verify",
    r"learnt|overlearnt": "learned",
    r"anew\b|yet less\b": "again; even less",
    r"to the bit\b": "bit-exact; identical bits",
    r"not taken:": "Rejected:",
    r"wished\b": "requested",
    rf"(?:un)?(?:{BRITISH})": "American spelling",
}
# What the list is for, and what it must find
DIALECT = (
    "What shall it learn?",
    "feed-forward layers are computed twice",
    "in batches of {size}, added up",
    "base model held in {bits} bits",
    "the base model's blocks streamed from system memory, {gib} GiB there besides",
    "Drawing images of the base model",
    "Drawing what the base model is to be kept at",
    "drawn again",
    "If the last one overdoes it, take one before.",
    "Esc takes back",
    "Do not train",
    "{name} is taken over.",
    "To give away, download:",
    "no sign of life since {clock}",
    "Beyond what the text encoder reads",
    "captions that go before the .txt files; not given: what was changed here",
    "images shown among yours and must stay as it sees them",
    "How firmly what masks leave out is kept as the base has it",
    "AdamW's memory of the squared gradient",
    "Text layer to read, counted from the end as clients do",
    "it is none of the formats that are read here",
    "The system does not give this program port N",
    "The password has 3 letters, and others can try many",
    "leave it out if it stays",
    "rank or seed are others now",
    "doubled, cut short, lettered over",
    "mends what it names",
    "what would harm the training is told beside a button that fixes it",
    "A run that cannot be gone on with says what is another now",
    "LoRA files of numbers that are none",
    "a file that was proved",
    "gives back how many",
    "the run goes on from its last checkpoint",
    "you are told if they are not",
)
# File and the words around a true use: since when it is allowed, and why
ALLOWED: dict[tuple[str, str], str] = {}


class Text(NamedTuple):
    """A text with the file that it is in, and its line."""

    file: str
    line: int
    said: str


def strings(path: Path) -> Iterator[Text]:
    """Every string of a Python file, docstrings too; the values of an f-string are `{}`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            said = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            said = node.value
        else:
            continue
        if " " in said:
            yield Text(path.relative_to(ROOT).as_posix(), node.lineno, said)


@cache
def texts() -> list[Text]:
    """Everything that people read: documents, the page's English, and the strings of the code."""
    catalog = json.loads(CATALOG.read_text(encoding="utf-8")).items()
    return [
        *(Text(path.relative_to(ROOT).as_posix(), 0, path.read_text(encoding="utf-8")) for path in DOCS),
        *(Text(CATALOG.relative_to(ROOT).as_posix(), number, said) for number, (_, said) in enumerate(catalog, 2)),
        *(text for path in [*CODE, *RECIPE] for text in strings(path)),
    ]


@cache
def found(phrase: str) -> list[str]:
    """Where a phrase occurs, as "file:line: the words around it"; code and links in documents do not count."""
    pattern = re.compile(rf"\b(?:{phrase})", re.IGNORECASE)
    hits = []
    for file, line, said in texts():
        shown = re.sub(r"`[^`]*`|\]\([^)]*\)", "``", said) if file.endswith(".md") else said
        flat = " ".join(shown.split())
        for match in pattern.finditer(flat):
            around = flat[max(match.start() - 40, 0) : match.end() + 40]
            if not any(file == where and words in around for where, words in ALLOWED):
                hits.append(f"{file}:{line}: {around}")
    return hits


def docstrings() -> Iterator[tuple[str, str]]:
    """Every docstring of the product, with the file and name of what it describes."""
    described = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for path in [*CODE, *RECIPE]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, described) and (said := ast.get_docstring(node)):
                yield f"{path.relative_to(ROOT).as_posix()}:{getattr(node, 'name', '')}", said


@pytest.mark.parametrize("phrase", PHRASES)
def test_the_field_has_another_word(phrase):
    assert found(phrase) == [], f"Say: {PHRASES[phrase]}"


@pytest.mark.parametrize("said", DIALECT)
def test_the_former_dialect_would_be_found(said):
    assert [phrase for phrase in PHRASES if re.search(rf"\b(?:{phrase})", said, re.IGNORECASE)]


def test_every_allowed_use_is_still_there():
    said = [(text.file, " ".join(text.said.split())) for text in texts()]
    assert [use for use in ALLOWED if not any(file == use[0] and use[1] in words for file, words in said)] == []


def test_a_docstring_stands_alone():
    assert [name for name, said in docstrings() if re.match(r"(?:The same|As)\b", said)] == []


def test_a_docstring_says_what_is_returned():
    assert [name for name, said in docstrings() if re.search(r"\bgives? back\b", said)] == []


if __name__ == "__main__":
    for one in PHRASES:
        sys.stdout.write(f"{len(found(one)):4} {one}\n")
        sys.stdout.writelines(f"       {hit}\n" for hit in found(one) if sys.argv[1:] == ["all"])
    sys.stdout.write(f"{sum(len(found(one)) for one in PHRASES):4} in all\n")
