"""Captions as token ids and as hidden states, in one or several chunks of what CLIP has positions for."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import CLIPTokenizer


def token_ids(tokenizer: CLIPTokenizer, captions: Sequence[str], chunks: int) -> Tensor:
    """Token ids (B, chunks, T) int64: each chunk has its own begin and end; what is longer is cut.

    One chunk is what every pipeline makes; several are read one by one, as sd-scripts and the WebUIs do.
    """
    body = tokenizer.model_max_length - 2
    begin, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    # SD 2.x and SDXL pad with "!": within a caption it stays a word, as the clients read it
    plain = {"add_special_tokens": False, "split_special_tokens": True}
    rows = []
    for caption in captions:
        words = tokenizer(caption, truncation=True, max_length=chunks * body, **plain).input_ids
        pieces = [words[start * body : (start + 1) * body] for start in range(chunks)]
        rows.append([[begin, *piece, end] + [pad] * (body - len(piece)) for piece in pieces])
    return torch.tensor(rows)


def joined(states: Tensor) -> Tensor:
    """The chunks' hidden states (B, chunks, T, D) as one caption's: one begin, all bodies, one end (sd-scripts)."""
    if states.shape[1] == 1:
        return states[:, 0]
    return torch.cat([states[:, 0, :1], states[:, :, 1:-1].flatten(1, 2), states[:, -1, -1:]], dim=1)
