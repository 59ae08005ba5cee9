"""CLIP's vocabulary, by which every Stable Diffusion reads captions: shipped, so that nothing has to be fetched."""

from __future__ import annotations

from functools import cache

from trainer.contract.home import CHECKOUT

MERGES = CHECKOUT / "assets" / "clip" / "merges.txt"
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
CHUNK_TOKENS = 75  # of a caption, between begin and end: what CLIP has positions for
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
