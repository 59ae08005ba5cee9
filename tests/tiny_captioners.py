"""Tiny random captioners: the build of the published models, nothing of their size."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken
from transformers import (
    BartTokenizer,
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipProcessor,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

SIDE, PATCH, WIDTH = 32, 8, 6
TAGS = [
    ("general", "9"),
    ("explicit", "9"),
    ("1girl", "0"),
    ("long_hair", "0"),
    ("^_^", "0"),
    ("hatsune_miku_(vocaloid)", "4"),
    ("outdoors", "0"),
    ("ana_(work)", "4"),
]
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
TEXT = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 64}


# --- ONNX: a graph is a protobuf message, so few fields that writing them takes less than a library ------------------


def _number(value: int) -> bytes:
    data = b""
    while value > 127:
        data, value = data + bytes([value & 127 | 128]), value >> 7
    return data + bytes([value])


def _field(place: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _number(place << 3) + _number(value)
    data = value.encode() if isinstance(value, str) else value
    return _number(place << 3 | 2) + _number(len(data)) + data


def _tensor(name: str, values: np.ndarray) -> bytes:
    dims = b"".join(_field(1, size) for size in values.shape)
    return _field(5, dims + _field(2, 1) + _field(8, name) + _field(9, values.astype("<f4").tobytes()))


def _node(kind: str, inputs: list[str], output: str, **ints: list[int]) -> bytes:
    attributes = b"".join(
        _field(5, _field(1, name) + b"".join(_field(8, one) for one in values) + _field(20, 7))
        for name, values in ints.items()
    )
    return _field(1, b"".join(_field(1, one) for one in inputs) + _field(2, output) + _field(4, kind) + attributes)


def _value(place: int, name: str, shape: list[int | str]) -> bytes:
    dims = b"".join(_field(1, _field(1 if isinstance(size, int) else 2, size)) for size in shape)
    return _field(place, _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, dims))))


def tagger(folder: Path, seed: int = 0, channels: int = 3, rows: int = len(TAGS)) -> dict[str, np.ndarray]:
    """Save a tagger in the layout of the published ones, patches as a vision transformer's; gives back its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    weights = {
        "patch": rng.normal(0, 0.02, (WIDTH, channels, PATCH, PATCH)).astype(np.float32),
        "head": rng.normal(0, 0.03, (WIDTH, len(TAGS))).astype(np.float32),
        "bias": rng.normal(0, 1, len(TAGS)).astype(np.float32),
    }
    graph = b"".join(
        [
            _node("Transpose", ["pixels"], "planes", perm=[0, 3, 1, 2]),
            _node("Conv", ["planes", "patch"], "patches", strides=[PATCH, PATCH]),
            _node("Relu", ["patches"], "seen"),
            _node("GlobalAveragePool", ["seen"], "pooled"),
            _node("Flatten", ["pooled"], "flat"),
            _node("Gemm", ["flat", "head", "bias"], "logits"),
            _node("Sigmoid", ["logits"], "tags"),
            _field(2, "tiny"),
            *(_tensor(name, values) for name, values in weights.items()),
            _value(11, "pixels", ["batch", SIDE, SIDE, channels]),
            _value(12, "tags", ["batch", len(TAGS)]),
        ]
    )
    (folder / "model.onnx").write_bytes(_field(1, 8) + _field(8, _field(2, 17)) + _field(7, graph))
    with (folder / "selected_tags.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["tag_id", "name", "category", "count"])
        table.writerows([number, name, kind, 100] for number, (name, kind) in enumerate(TAGS[:rows]))
    return weights


# --- transformers -----------------------------------------------------------------------------------------------------


def blip(folder: Path) -> Path:
    """Save a tiny random BLIP; gives back its folder."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    config = BlipConfig(
        vision_config={**TEXT, "image_size": SIDE, "patch_size": PATCH},
        text_config={
            **TEXT,
            "vocab_size": len(words),
            "encoder_hidden_size": 32,
            "max_position_embeddings": 64,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "sep_token_id": 3,
            "pad_token_id": 0,
        },
        projection_dim=16,
    )
    BlipForConditionalGeneration(config).save_pretrained(folder)
    BlipProcessor(BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}), tokenizer).save_pretrained(folder)
    return folder


def florence2(folder: Path) -> Path:
    """Save a tiny random Florence-2; gives back its folder."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    bytes_as_letters = [chr(code) for code in [*range(33, 127), *range(161, 173), *range(174, 324)]]
    words = ["<s>", "<pad>", "</s>", "<unk>", *bytes_as_letters]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = BartTokenizer(
        vocab=vocabulary, merges=[], extra_special_tokens={"image_token": AddedToken("<image>", special=True)}
    )
    config = Florence2Config(
        vision_config={
            "depths": (1, 1, 1, 1),
            "embed_dim": (8, 8, 16, 16),
            "num_heads": (1, 1, 2, 2),
            "num_groups": (1, 1, 2, 2),
            "window_size": 2,
            "projection_dim": 32,
        },
        text_config={
            "model_type": "bart",
            "vocab_size": len(tokenizer),
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "max_position_embeddings": 256,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    model = Florence2ForConditionalGeneration(config)
    model.save_pretrained(folder)
    images = CLIPImageProcessorPil(
        size={"height": 64, "width": 64}, crop_size={"height": 64, "width": 64}, do_center_crop=False
    )
    images.image_seq_length = (64 // 32) ** 2 + 1
    Florence2Processor(images, tokenizer).save_pretrained(folder)
    return folder
