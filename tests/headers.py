"""Safetensors files of every kind as far as their headers go: real names and shapes, holes in place of weights."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I8": 8, "U8": 8, "F8_E4M3": 8, "F8_E5M2": 8}
SD2_MARKER = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
Shapes = dict[str, tuple[int, ...]]


def write(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str = "F16",
    metadata: dict[str, str] | None = None,
    dtypes: Mapping[str, str] | None = None,
    values: Mapping[str, bytes] | None = None,
) -> Path:
    """A file of these tensors, holes but for `values`; gives back its path."""
    fields: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    reached = 0
    begins = {}
    for name, shape in shapes.items():
        kind = (dtypes or {}).get(name, dtype)
        count = BITS[kind] // 8
        for side in shape:
            count *= side
        fields[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [reached, reached + count]}
        begins[name] = reached
        reached += count
    return assemble(path, json.dumps(fields).encode(), reached, {begins[n]: raw for n, raw in (values or {}).items()})


def assemble(path: Path, header: bytes, data_bytes: int, values: Mapping[int, bytes] | None = None) -> Path:
    """A file of this header and so many bytes of data, holes but for `values` by their place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    start = 8 + len(header)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(start + data_bytes)
        for place, raw in (values or {}).items():
            file.seek(start + place)
            file.write(raw)
    return path


WIDE = re.compile(r"input_blocks\.\d+\.0\.out_layers\.3\.weight$|down\.\d\.block\.0\.conv1\.weight$")


@cache
def complete(family: Any) -> Shapes:
    """All tensors of a whole file, of one number each but where a width is read off them."""
    import originals

    tensors = originals.original(family, originals.bare_parts(family, tiny=False))
    return {name: (one.shape[0], 1, 1, 1) if WIDE.search(name) else (1,) for name, one in tensors.items()}


@cache
def names_in_folder(part: str, config: str) -> tuple[str, ...]:
    """All tensors of a part of such a configuration, as the libraries build it."""
    import diffusers
    import torch
    import transformers

    told = json.loads(config)
    with torch.device("meta"):
        if part in ("unet", "vae"):
            cls: Any = diffusers.UNet2DConditionModel if part == "unet" else diffusers.AutoencoderKL
            return tuple(cls.from_config(told).state_dict())
        kind: Any = transformers.CLIPTextModelWithProjection if part == "text_encoder_2" else transformers.CLIPTextModel
        del told["model_type"]
        return tuple(kind(transformers.CLIPTextConfig(**told)).state_dict())


def unet(width: int, channels: int = 4, deep: bool = False) -> Shapes:
    """The deciding layers of a UNet in the original layout; `width` of the text, `deep` as SDXL's."""
    root = "model.diffusion_model."
    block, inner = ("input_blocks.4.1.", 640) if deep else ("input_blocks.1.1.", 320)
    shapes: Shapes = {
        f"{root}time_embed.0.weight": (1280, 320),
        f"{root}input_blocks.0.0.weight": (320, channels, 3, 3),
        f"{root}{block}transformer_blocks.0.attn2.to_k.weight": (inner, width),
        f"{root}middle_block.0.in_layers.2.weight": (1280, 1280, 3, 3),
        f"{root}out.2.weight": (4, 320, 3, 3),
    }
    if deep:
        shapes[f"{root}label_emb.0.0.weight"] = (1280, 2816)
        shapes[f"{root}input_blocks.8.1.transformer_blocks.9.attn2.to_k.weight"] = (1280, width)
    else:
        shapes[SD2_MARKER] = (320,)
    return shapes


def vae(prefix: str = "first_stage_model.") -> Shapes:
    """The deciding layers of a VAE in the original layout."""
    return {
        f"{prefix}encoder.conv_in.weight": (128, 3, 3, 3),
        f"{prefix}encoder.down.0.block.0.conv1.weight": (128, 128, 3, 3),
        f"{prefix}decoder.conv_in.weight": (512, 4, 3, 3),
        f"{prefix}quant_conv.weight": (8, 8, 1, 1),
        f"{prefix}post_quant_conv.weight": (4, 4, 1, 1),
    }


def clip_l(prefix: str = "cond_stage_model.transformer.text_model.") -> Shapes:
    """CLIP-L, as transformers names it."""
    return {
        f"{prefix}embeddings.token_embedding.weight": (49408, 768),
        f"{prefix}encoder.layers.0.self_attn.q_proj.weight": (768, 768),
        f"{prefix}final_layer_norm.weight": (768,),
    }


def open_clip(width: int, prefix: str = "cond_stage_model.model.") -> Shapes:
    """OpenCLIP's text encoder, as it names itself."""
    return {
        f"{prefix}token_embedding.weight": (49408, width),
        f"{prefix}transformer.resblocks.0.attn.in_proj_weight": (3 * width, width),
        f"{prefix}text_projection": (width, width),
        f"{prefix}ln_final.weight": (width,),
    }


def sd15(channels: int = 4) -> Shapes:
    """Stable Diffusion 1.x."""
    return complete("sd15") | unet(768, channels) | vae() | clip_l()


def sd2(channels: int = 4) -> Shapes:
    """Stable Diffusion 2.x."""
    return complete("sd2") | unet(1024, channels) | vae() | open_clip(1024)


def sdxl(channels: int = 4) -> Shapes:
    """SDXL base."""
    first, second = clip_l("conditioner.embedders.0.transformer.text_model."), "conditioner.embedders.1.model."
    return complete("sdxl") | unet(2048, channels, deep=True) | vae() | first | open_clip(1280, second)


def folder(path: Path, unet: dict[str, object], *, second: bool = False, **configs: dict[str, object]) -> Path:
    """A diffusers folder: what its configurations say over what they say in SD 1.5; gives back its path."""
    usual: dict[str, dict[str, object]] = {
        "unet": {"_class_name": "UNet2DConditionModel", "in_channels": 4, "sample_size": 64},
        "vae": {
            "_class_name": "AutoencoderKL",
            "latent_channels": 4,
            "block_out_channels": [128, 256, 512, 512],
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
        },
        "text_encoder": {"model_type": "clip_text_model", "hidden_size": 768},
        "tokenizer": {"model_max_length": 77},
        "scheduler": {"_class_name": "PNDMScheduler"},
    }
    if unet.get("addition_embed_type"):
        usual["unet"]["projection_class_embeddings_input_dim"] = 2816
        usual["unet"]["addition_time_embed_dim"] = 256
    if second:
        usual |= {"text_encoder_2": usual["text_encoder"], "tokenizer_2": usual["tokenizer"]}
    for part, config in usual.items():
        (path / part).mkdir(parents=True)
        name = {"scheduler": "scheduler_config.json", "tokenizer": "tokenizer_config.json"}.get(part, "config.json")
        told = config | (unet if part == "unet" else configs.get(part, {}))
        (path / part / name).write_text(json.dumps(told), encoding="utf-8")
        if part in ("unet", "vae") or part.startswith("text"):
            names = names_in_folder(part, json.dumps(told))
            write(path / part / "model.safetensors", dict.fromkeys(names, (1,)))
    (path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}), encoding="utf-8")
    return path
