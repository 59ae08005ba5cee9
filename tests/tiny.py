"""Tiny random models and images for tests: Stable Diffusion's build, nothing of its size."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image, ImageDraw
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from trainer.contract.settings.config import validated
from trainer.engine.families.base import Family
from trainer.engine.families.load import load_family

SIZE_PX = 64
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


def tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer of single letters."""
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77, pad_token="<|endoftext|>")


def model(folder: Path, prediction: str = "epsilon", seed: int = 0) -> Path:
    """Save a tiny random Stable Diffusion with 6 latent channels and 4 px per latent; gives back its folder."""
    torch.manual_seed(seed)
    words = tokenizer(folder / "words")
    vae = AutoencoderKL(
        block_out_channels=(8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=6,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=SIZE_PX,
        scaling_factor=0.7,
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=6,
        out_channels=6,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=2,
        norm_num_groups=8,
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=77,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.eos_token_id,
        )
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=words,
        unet=unet,
        scheduler=DDIMScheduler(**NOISE, prediction_type=prediction, clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def load(base_model: Path, dtype: torch.dtype = torch.float32, **sections: dict[str, Any]) -> Family:
    """A base model as a training loads it, on the CPU; keyword arguments are sections of settings to change."""
    values = {**sections, "model": {"base_model": str(base_model), **sections.get("model", {})}}
    return load_family(validated(values), torch.device("cpu"), dtype)


def images(folder: Path, count: int = 5, size: tuple[int, int] = (80, 64)) -> Path:
    """Save `count` small drawings with captions; gives back their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(1)
    for i in range(count):
        image = Image.new("RGB", size, "white")
        box = [rng.randrange(20), rng.randrange(20), rng.randrange(40, 60), rng.randrange(40, 60)]
        color = tuple(rng.randrange(256) for _ in range(3))
        ImageDraw.Draw(image).ellipse(box, fill=color)
        image.save(folder / f"image {i}.png")
        (folder / f"image {i}.txt").write_text(f"ball number {i}, round", encoding="utf-8")
    return folder
