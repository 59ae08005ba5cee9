"""Real base models' builds with random weights, in the original one-file layout and as diffusers folders.

Names follow the first Stable Diffusion code (ldm, for SDXL sgm) by rules of our own: they check diffusers' converters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

Family = Literal["sd15", "sd2", "sdxl"]
FIXTURES = Path(__file__).parent / "fixtures"
TINY = (64, 32, 64, 64)  # channels; they change where the published ones do, for there lie extra layers (conv_shortcut)
UNET, VAE = "model.diffusion_model.", "first_stage_model."
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


@dataclass(frozen=True)
class TextBuild:
    """One text encoder: its name in a folder and in the key tables, where it lies in the original file, its size."""

    part: str
    table: str
    prefix: str
    width: int
    layers: int
    open_clip: bool


CLIP_L = (768, 12, False)
TEXTS: dict[Family, tuple[TextBuild, ...]] = {
    "sd15": (TextBuild("text_encoder", "te1", "cond_stage_model.transformer.text_model.", *CLIP_L),),
    "sd2": (TextBuild("text_encoder", "te1", "cond_stage_model.model.", 1024, 23, True),),
    "sdxl": (
        TextBuild("text_encoder", "te1", "conditioner.embedders.0.transformer.text_model.", *CLIP_L),
        TextBuild("text_encoder_2", "te2", "conditioner.embedders.1.model.", 1280, 32, True),
    ),
}


def parts(
    family: Family, tiny: bool, seed: int = 0, sample_size: int | None = None, dtype: torch.dtype = torch.float32
) -> dict[str, nn.Module]:
    """A model's networks by their diffusers names, with random weights, ready to run.

    Args:
        family: Whose build.
        tiny: The same blocks and layers at a few channels each, instead of the published widths.
        seed: The same seed gives the same weights.
        sample_size: The UNet's own latent size in its configuration; else the published one.
        dtype: Of the weights.
    """
    made = bare_parts(family, tiny, sample_size)
    rng = torch.Generator().manual_seed(seed)
    for module in made.values():
        _fill(module.to(dtype).to_empty(device="cpu"), rng)
    return made


def bare_parts(family: Family, tiny: bool, sample_size: int | None = None) -> dict[str, nn.Module]:
    """The same networks on the meta device: shapes without weights."""
    with torch.device("meta"):
        texts = {text.part: _text_encoder(text, tiny) for text in TEXTS[family]}
        return {"unet": _unet(family, tiny, sample_size), "vae": _vae(family, tiny), **texts}


def _fill(module: nn.Module, rng: torch.Generator) -> None:
    """Draw weights that keep signals near unit size, so that float16 stays finite; no two tensors are alike."""
    for name, tensor in module.state_dict().items():
        if tensor.ndim > 1:
            tensor.normal_(0.0, tensor[0].numel() ** -0.5, generator=rng)
        else:
            tensor.normal_(1.0 if name.endswith(".weight") else 0.0, 0.02, generator=rng)
    for positions in module.buffers():  # CLIP's position_ids, which no state holds
        positions.copy_(torch.arange(positions.shape[-1]))
    module.eval()


def _unet(family: Family, tiny: bool, sample_size: int | None) -> nn.Module:
    xl = family == "sdxl"
    widths = (TINY if tiny else (320, 640, 1280, 1280))[: 3 if xl else 4]
    blocks = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 6 * 256 + _text_width(TEXTS["sdxl"][1], tiny),
    }
    made: nn.Module = UNet2DConditionModel(
        sample_size=sample_size or (128 if xl else 64),
        block_out_channels=widths,
        cross_attention_dim=sum(_text_width(text, tiny) for text in TEXTS[family]),
        # The number of heads, in spite of its name
        attention_head_dim=8 if family == "sd15" else tuple(_heads(width) for width in widths),
        use_linear_projection=family != "sd15",
        **(blocks if xl else {}),
    )
    return made


def _vae(family: Family, tiny: bool) -> nn.Module:
    made: nn.Module = AutoencoderKL(
        block_out_channels=TINY if tiny else (128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=1024 if family == "sdxl" else 512,
        scaling_factor=0.13025 if family == "sdxl" else 0.18215,
    )
    return made


def _text_encoder(text: TextBuild, tiny: bool) -> nn.Module:
    width = _text_width(text, tiny)
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=text.layers,
        num_attention_heads=_heads(width),
        hidden_act="gelu" if text.open_clip else "quick_gelu",
    )
    build = CLIPTextModelWithProjection if text.part == "text_encoder_2" else CLIPTextModel
    made: nn.Module = build(config)
    return made


def _text_width(text: TextBuild, tiny: bool) -> int:
    """Channels of a text encoder's states; tiny ones still differ between CLIP-L and OpenCLIP."""
    return (64 if text.open_clip else 32) if tiny else text.width


def _heads(width: int) -> int:
    return max(1, width // 64)


def original(family: Family, parts: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Every tensor of a model as its original file names and shapes it.

    Sharing memory with `parts` where it can. Along with them: what published files hold and diffusers does not load.
    """
    made = {UNET + unet_name(name, family): tensor for name, tensor in parts["unet"].state_dict().items()}
    for name, tensor in parts["vae"].state_dict().items():
        key = vae_name(name)
        # The original's attention is made of 1x1 convolutions
        made[VAE + key] = tensor[:, :, None, None] if ".attn_1." in key and tensor.ndim == 2 else tensor
    for text in TEXTS[family]:
        state = {name.removeprefix("text_model."): t for name, t in parts[text.part].state_dict().items()}
        layout = _open_clip(state) if text.open_clip else state | {"embeddings.position_ids": torch.arange(77)[None]}
        if family == "sd2":
            layout |= _beyond_sd2(layout)
        made |= {text.prefix + key: tensor for key, tensor in layout.items()}
    return made | ({} if family == "sdxl" else _schedule())


UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def unet_name(name: str, family: Family) -> str:
    """A UNet tensor's original name: there all blocks of a side are numbered through, three to a level."""
    module, leaf = name.rsplit(".", 1)
    if module in UNET_ENDS:
        return f"{UNET_ENDS[module]}.{leaf}"
    side, level, kind, number, rest = name.replace("mid_block.", "mid_block.0.").split(".", 4)
    i, j = int(level), int(number)
    if kind == "resnets":
        layer, leaf = rest.split(".")
        rest = f"{RESNET[layer]}.{leaf}"
    if kind == "downsamplers":
        rest = rest.replace("conv", "op")
    place = {
        "down_blocks resnets": f"input_blocks.{3 * i + j + 1}.0",
        "down_blocks attentions": f"input_blocks.{3 * i + j + 1}.1",
        "down_blocks downsamplers": f"input_blocks.{3 * i + 3}.0",
        "mid_block resnets": f"middle_block.{2 * j}",
        "mid_block attentions": "middle_block.1",
        "up_blocks resnets": f"output_blocks.{3 * i + j}.0",
        "up_blocks attentions": f"output_blocks.{3 * i + j}.1",
        # After the residual layer and attention, which SD 1.x and 2.x have not at their lowest level
        "up_blocks upsamplers": f"output_blocks.{3 * i + 2}.{1 if i == 0 and family != 'sdxl' else 2}",
    }
    return f"{place[f'{side} {kind}']}.{rest}"


VAE_WORDS = {
    "mid_block.resnets.0.": "mid.block_1.",
    "mid_block.resnets.1.": "mid.block_2.",
    "mid_block.attentions.0.": "mid.attn_1.",
    ".group_norm.": ".norm.",
    ".to_q.": ".q.",
    ".to_k.": ".k.",
    ".to_v.": ".v.",
    ".to_out.0.": ".proj_out.",
    "down_blocks.": "down.",
    ".resnets.": ".block.",
    ".downsamplers.0.": ".downsample.",
    ".upsamplers.0.": ".upsample.",
    ".conv_norm_out.": ".norm_out.",
    ".conv_shortcut.": ".nin_shortcut.",
}


def vae_name(name: str) -> str:
    """A VAE tensor's original name; the original counts the decoder's four levels from the image down."""
    name = re.sub(r"up_blocks\.(\d)", lambda level: f"up.{3 - int(level[1])}", name)
    for ours, theirs in VAE_WORDS.items():
        name = name.replace(ours, theirs)
    return name


OPEN_CLIP_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
    "text_projection.weight": "text_projection",
}
OPEN_CLIP_LAYERS: dict[str, tuple[str, int | None]] = {
    "self_attn.q_proj": ("attn.in_proj_", 0),
    "self_attn.k_proj": ("attn.in_proj_", 1),
    "self_attn.v_proj": ("attn.in_proj_", 2),
    "self_attn.out_proj": ("attn.out_proj.", None),
    "layer_norm1": ("ln_1.", None),
    "layer_norm2": ("ln_2.", None),
    "mlp.fc1": ("mlp.c_fc.", None),
    "mlp.fc2": ("mlp.c_proj.", None),
}


def open_clip_name(name: str) -> tuple[str, int | None]:
    """A text encoder tensor's name in OpenCLIP, and which third of that tensor's rows it is, if not all."""
    layer = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
    if layer is None:
        return OPEN_CLIP_ENDS[name], None
    place, third = OPEN_CLIP_LAYERS[layer[2]]
    return f"transformer.resblocks.{layer[1]}.{place}{layer[3]}", third


def _open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A text encoder as OpenCLIP stores it: q, k and v in one, the projection for `x @ P` instead of `P x`."""
    whole: dict[str, Tensor] = {"logit_scale": torch.tensor(4.6052)}
    thirds: dict[str, dict[int, Tensor]] = {}
    for name, tensor in state.items():
        key, third = open_clip_name(name)
        if third is None:
            whole[key] = tensor.T.contiguous() if key == "text_projection" else tensor
        else:
            thirds.setdefault(key, {})[third] = tensor
    return whole | {key: torch.cat([rows[0], rows[1], rows[2]]) for key, rows in thirds.items()}


def _beyond_sd2(layout: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What SD 2.x files hold of OpenCLIP-H and Stable Diffusion never runs: the 24th layer and the projection."""
    last = "transformer.resblocks.22."
    unused = {key.replace(".22.", ".23."): tensor.flip(0) for key, tensor in layout.items() if key.startswith(last)}
    return unused | {"text_projection": layout[f"{last}attn.out_proj.weight"].T.contiguous()}


def _schedule() -> dict[str, Tensor]:
    """The noise schedule that SD 1.x and 2.x files hold, float32."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return {"betas": betas.float(), "alphas_cumprod": (1 - betas).cumprod(0).float()}


def write_file(
    path: Path,
    family: Family,
    *,
    tiny: bool = True,
    dtype: torch.dtype = torch.float16,
    seed: int = 0,
    metadata: Mapping[str, str] | None = None,
    extra: Mapping[str, Tensor] | None = None,
) -> Path:
    """Save one model as a single file in the original layout; gives back its path.

    Args:
        path: The file.
        family: Whose build.
        tiny: A few MB; else full size (SD 1.5: 2 GiB, SDXL: 6.5 GiB in float16), which needs as much memory.
        dtype: Of the weights.
        seed: The same seed and dtype give the weights of `write_folder`.
        metadata: For the header.
        extra: More tensors, or others for names that the file has.
    """
    tensors = original(family, parts(family, tiny, seed, dtype=dtype)) | dict(extra or {})
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, dict(metadata) if metadata else None)
    return path


def write_folder(
    path: Path,
    family: Family,
    *,
    tiny: bool = True,
    dtype: torch.dtype = torch.float16,
    seed: int = 0,
    prediction: str = "epsilon",
    tokenizers: Mapping[str, Any] | None = None,
) -> Path:
    """Save one model as a diffusers folder; gives back its path.

    Args:
        path: The folder.
        family: Whose build.
        tiny: As for `write_file`.
        dtype: Of the weights.
        seed: The same seed and dtype give the weights of `write_file`.
        prediction: What the scheduler's configuration says.
        tokenizers: Saved along: "tokenizer", for SDXL "tokenizer_2" too. Without them the folder has none.
    """
    words = {text.part.replace("text_encoder", "tokenizer"): None for text in TEXTS[family]} | dict(tokenizers or {})
    scheduler = DDIMScheduler(**NOISE, prediction_type=prediction, clip_sample=False, steps_offset=1)
    rest: dict[str, Any] = {"scheduler": scheduler, **words}
    if family == "sdxl":
        pipeline = StableDiffusionXLPipeline
    else:
        pipeline = StableDiffusionPipeline
        rest |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipeline(**parts(family, tiny, seed, dtype=dtype), **rest).save_pretrained(path)
    return path


def lora_places(family: Family) -> dict[str, tuple[str, int | None]]:
    """Kohya's module name -> the original weight it updates, and which third of its rows, if not all."""
    table = json.loads((FIXTURES / f"{family}-keys.json").read_text())
    texts = {text.table: text for text in TEXTS[family]}
    places: dict[str, tuple[str, int | None]] = {}
    for path, entry in table.items():
        part, rest = path.split(".", 1)
        if part == "unet":
            places[entry["kohya"]] = (f"{UNET}{entry['ldm']}.weight", None)
            continue
        text, name = texts[part], f"{rest.removeprefix('text_model.')}.weight"
        key, third = open_clip_name(name) if text.open_clip else (name, None)
        places[entry["kohya"]] = (text.prefix + key, third)
    return places


def apply_lora_to_original(
    tensors: Mapping[str, Tensor], lora: Mapping[str, Tensor], family: Family
) -> dict[str, Tensor]:
    """The model with a kohya LoRA added, as a client that keeps the original layout adds it.

    Raises:
        KeyError: The LoRA has a name that the family's key table has not.
    """
    made, places = dict(tensors), lora_places(family)
    for module in sorted({name.split(".")[0] for name in lora}):
        up, down = lora[f"{module}.lora_up.weight"].float(), lora[f"{module}.lora_down.weight"].float()
        update = float(lora[f"{module}.alpha"]) / down.shape[0] * (up.flatten(1) @ down.flatten(1))
        key, third = places[module]
        weight = made[key].float().clone()
        target = weight if third is None else weight.chunk(3)[third]
        target += update.reshape(target.shape)
        made[key] = weight.to(tensors[key].dtype)
    return made
