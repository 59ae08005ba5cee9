"""CLIP's vocabulary, by which every Stable Diffusion reads captions: shipped, so that nothing has to be fetched."""

from dataclasses import dataclass
from functools import cache

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

from trainer.contract.home import CHECKOUT

MERGES = CHECKOUT / "assets" / "clip" / "merges.txt"
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
CHUNK_TOKENS = 75  # of a caption, between begin and end: what CLIP has positions for
LETTERS = 20_000  # of a caption that are counted: more than any text encoder reads
WORD = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
PLAIN = (range(ord("!"), ord("~") + 1), range(ord("¡"), ord("¬") + 1), range(ord("®"), ord("ÿ") + 1))


@cache
def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Token ids by token, and the merges in their order.

    CLIP counts its ids in this order: the 256 bytes, the bytes that end a word, the merges, begin and end (Radford et
    al. 2021, after GPT-2's byte-level pairs).
    """
    merges = [(line.split(" ")[0], line.split(" ")[1]) for line in MERGES.read_text(encoding="utf-8").splitlines()]
    letters = _letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges), BEGIN, END]
    return {word: number for number, word in enumerate(words)}, merges


def _letters() -> list[str]:
    """A printable letter for every byte: itself where it is one, else the next of those from 256 on (GPT-2)."""
    plain = [chr(code) for codes in PLAIN for code in codes]
    others = 256 - len(plain)
    return [*plain, *(chr(256 + number) for number in range(others))]


@cache
def tokenizer() -> Tokenizer:
    """CLIP's own way of cutting a text into tokens, without begin and end (that of transformers.CLIPTokenizer)."""
    ids, merges = vocabulary()
    made = Tokenizer(BPE(vocab=ids, merges=merges, end_of_word_suffix="</w>", unk_token=END))
    made.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return made


@dataclass(frozen=True)
class Reading:
    """How much of a caption is read."""

    tokens: int  # of the whole, or of its first `LETTERS`
    read: str
    cut: str  # what is not


def reading(caption: str, limit: int) -> Reading:
    """How far a text encoder reads that takes `limit` tokens; a word of which a part is missing counts as cut."""
    offsets = tokenizer().encode(caption[:LETTERS]).offsets
    if len(offsets) <= limit:
        return Reading(len(offsets), caption, "")
    end = offsets[limit][0]
    while end and not caption[end - 1].isspace():
        end -= 1
    return Reading(len(offsets), caption[:end].rstrip(), caption[end:])
