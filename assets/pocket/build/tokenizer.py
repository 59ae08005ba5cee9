"""CLIP's byte-pair tokenizer cut to its first 8,000 merges, so the embedding stays small (vocabulary 8,514)."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from transformers import CLIPTokenizer

from assets.pocket.build.common import WORK

MERGES = 8000
MAX_TOKENS = 32  # the longest base caption has 13


def _byte_symbols() -> list[str]:
    """The 256 printable stand-ins for bytes, in CLIP's vocabulary order (Radford et al., GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(code) for code in printable] + [chr(256 + i) for i in range(len(others))]


def build_tokenizer() -> CLIPTokenizer:
    """A `CLIPTokenizer` whose ids are CLIP's own up to the last merge kept."""
    with gzip.open(WORK / "bpe.txt.gz", "rt", encoding="utf-8") as file:
        merges = [line.strip() for line in file.read().split("\n")[1 : MERGES + 1]]
    symbols = _byte_symbols()
    words = [*symbols, *(s + "</w>" for s in symbols), *(m.replace(" ", "") for m in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    folder = WORK / "tokenizer"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=MAX_TOKENS, pad_token="<|endoftext|>")


def token_ids(tokenizer: CLIPTokenizer, texts: list[str]) -> list[list[int]]:
    """Ids padded to the full length, as every Stable Diffusion pipeline pads them."""
    return list(tokenizer(texts, padding="max_length", max_length=MAX_TOKENS, truncation=True).input_ids)


def save_tokenizer(target: Path) -> None:
    """Write the tokenizer in the diffusers layout."""
    build_tokenizer().save_pretrained(target)
