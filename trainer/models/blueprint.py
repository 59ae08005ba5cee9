"""The names of all tensors that a base model's parts must hold, from their configurations, without torch.

Names are diffusers' and transformers'; `in_original` and the OpenCLIP list give those of the one-file layout. Where a
library fills what is missing with random numbers, or speaks of it in its own words, this list knows before.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Config = Mapping[str, Any]
Names = Iterator[str]
ENCODES, DECODES = "DownEncoderBlock2D", "UpDecoderBlock2D"  # the blocks of a VAE
DOWN, UP = ("DownBlock2D", "CrossAttnDownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
MOST = 32  # layers or transformer blocks of one level; a damaged configuration may ask for billions
LAYERS_PER_BLOCK = 2  # of every UNet and VAE in the original layout
TRANSFORMER = (
    *("norm1", "norm2", "norm3", "attn1.to_out.0", "attn2.to_out.0", "ff.net.0.proj", "ff.net.2"),
)  # with weight and bias
QUERIES = tuple(f"{attention}.to_{what}.weight" for attention in ("attn1", "attn2") for what in "qkv")
RESIDUAL = ("norm1", "conv1", "norm2", "conv2")
CLIP_LAYER = (
    "layer_norm1",
    "layer_norm2",
    "mlp.fc1",
    "mlp.fc2",
    *(f"self_attn.{x}_proj" for x in ("q", "k", "v", "out")),
)
OPEN_CLIP_LAYER = ("ln_1", "ln_2", "attn.out_proj", "mlp.c_fc", "mlp.c_proj")
LATER_NAMES = {
    "to_q": "query",
    "to_k": "key",
    "to_v": "value",
    "to_out.0": "proj_attn",
}  # of a VAE's attention, and earlier


@dataclass(frozen=True)
class _Unet:
    """A UNet's numbers by level: channels, residual layers, transformer blocks, and whether there is attention."""

    channels: list[int]
    layers: list[int]
    depths: list[int]
    down: list[bool]
    up: list[bool]
    sized: bool  # conditioned on image sizes, as SDXL is


def unet(config: Config) -> frozenset[str] | None:
    """The tensors of a UNet2DConditionModel; None where it is built of blocks that Stable Diffusion does not have."""
    channels = _numbers(config.get("block_out_channels"), (320, 640, 1280, 1280))
    down = _blocks(config, "down", [DOWN[1], DOWN[1], DOWN[1], DOWN[0]])
    up = _blocks(config, "up", [UP[0], UP[1], UP[1], UP[1]])
    layers = _each(config.get("layers_per_block", LAYERS_PER_BLOCK), len(channels))
    depths = _each(config.get("transformer_layers_per_block", 1), len(channels))
    plain = {*down} <= {*DOWN} and {*up} <= {*UP} and len(down) == len(up) == len(channels)
    mid = config.get("mid_block_type", "UNetMidBlock2DCrossAttn") == "UNetMidBlock2DCrossAttn"
    if not (plain and mid and layers and depths):
        return None
    sized = config.get("addition_embed_type") == "text_time"
    attended = [kind == DOWN[1] for kind in down], [kind == UP[1] for kind in up]
    return frozenset(_unet(_Unet(channels, layers, depths, *attended, sized)))


def _unet(model: _Unet) -> Names:
    channels, layers, depths, down, up = model.channels, model.layers, model.depths, model.down, model.up
    names = ["conv_in", "time_embedding.linear_1", "time_embedding.linear_2", "conv_norm_out", "conv_out"]
    if model.sized:
        names += ["add_embedding.linear_1", "add_embedding.linear_2"]
    yield from _affine(names)
    last = len(channels) - 1
    for level, out in enumerate(channels):
        block, before = f"down_blocks.{level}", channels[max(level - 1, 0)]
        for layer in range(layers[level]):
            yield from _residual(f"{block}.resnets.{layer}", (before if layer == 0 else out) != out)
            yield from _transformer(f"{block}.attentions.{layer}", depths[level] if down[level] else 0)
        yield from _affine([f"{block}.downsamplers.0.conv"] if level < last else [])
    for number in (0, 1):
        yield from _residual(f"mid_block.resnets.{number}", shortcut=False)
    yield from _transformer("mid_block.attentions.0", depths[-1])
    for level, out in enumerate(reversed(channels)):
        block, place = f"up_blocks.{level}", last - level
        before, skipped = channels[min(place + 1, last)], channels[max(place - 1, 0)]
        for layer in range(layers[place] + 1):
            wide = (before if layer == 0 else out) + (skipped if layer == layers[place] else out)
            yield from _residual(f"{block}.resnets.{layer}", wide != out)
            yield from _transformer(f"{block}.attentions.{layer}", depths[place] if up[level] else 0)
        yield from _affine([f"{block}.upsamplers.0.conv"] if level < last else [])


def vae(config: Config) -> frozenset[str] | None:
    """The tensors of an AutoencoderKL; None where it is built of other blocks."""
    channels = _numbers(config.get("block_out_channels"), (64,))
    down, up = _blocks(config, "down", [ENCODES]), _blocks(config, "up", [DECODES])
    plain = {*down, *up} <= {ENCODES, DECODES} and len(down) == len(up) == len(channels)
    layers, *_ = _each(config.get("layers_per_block", 1), 1) or [0]
    if not (plain and layers):
        return None
    names = set(_affine(["quant_conv"] if config.get("use_quant_conv", True) else []))
    names |= set(_affine(["post_quant_conv"] if config.get("use_post_quant_conv", True) else []))
    for side, blocks, sizes, count, between in (
        ("encoder", "down_blocks", channels, layers, "downsamplers"),
        ("decoder", "up_blocks", [*reversed(channels)], layers + 1, "upsamplers"),
    ):
        names |= set(_affine(f"{side}.{name}" for name in ("conv_in", "conv_norm_out", "conv_out")))
        for number in (0, 1):
            names |= set(_residual(f"{side}.mid_block.resnets.{number}", shortcut=False, timed=False))
        if config.get("mid_block_add_attention", True):
            attention = f"{side}.mid_block.attentions.0"
            names |= set(_affine(f"{attention}.{name}" for name in ("group_norm", *LATER_NAMES)))
        for level, (before, out) in enumerate(pairwise([sizes[0], *sizes])):
            block = f"{side}.{blocks}.{level}"
            for layer in range(count):
                names |= set(_residual(f"{block}.resnets.{layer}", layer == 0 and before != out, timed=False))
            names |= set(_affine([f"{block}.{between}.0.conv"] if level < len(sizes) - 1 else []))
    return frozenset(names)


def later(name: str) -> str:
    """A VAE tensor's name as today's diffusers has it, from that or an earlier one."""
    if ".attentions." in name:
        for ours, earlier in LATER_NAMES.items():
            name = name.replace(f".{earlier}.", f".{ours}.")
    return name


def clip(layers: int) -> frozenset[str]:
    """The tensors of a CLIP text encoder of so many layers, without its projection, which not every one has."""
    names = {f"text_model.embeddings.{kind}_embedding.weight" for kind in ("token", "position")}
    names |= set(_affine(["text_model.final_layer_norm"]))
    return frozenset(
        names | set(_affine(f"text_model.encoder.layers.{n}.{part}" for n in range(layers) for part in CLIP_LAYER))
    )


def open_clip(layers: int) -> frozenset[str]:
    """The tensors of an OpenCLIP text encoder of so many layers, as the original layout names them."""
    blocks = [f"transformer.resblocks.{layer}" for layer in range(layers)]
    names = {"token_embedding.weight", "positional_embedding", *_affine(["ln_final"])}
    names |= {f"{block}.attn.in_proj_{what}" for block in blocks for what in ("weight", "bias")}
    return frozenset(names | set(_affine(f"{block}.{part}" for block in blocks for part in OPEN_CLIP_LAYER)))


RESIDUAL_IN_ORIGINAL = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
UNET_IN_ORIGINAL = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2", "conv_norm_out": "out.0",
    "conv_out": "out.2", "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}  # fmt: skip
VAE_IN_ORIGINAL = {
    "mid_block.resnets.0": "mid.block_1", "mid_block.resnets.1": "mid.block_2", "mid_block.attentions.0": "mid.attn_1",
    "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out", "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut", "downsamplers.0.conv": "downsample.conv", "upsamplers.0.conv": "upsample.conv",
}  # fmt: skip


def unet_in_original(names: frozenset[str]) -> frozenset[str]:
    """These tensors of a UNet as the original layout names them, whose blocks are numbered through."""
    attended = {match[1] for name in names if (match := re.match(r"up_blocks\.(\d+)\.attentions", name))}

    def spelt(name: str) -> str:
        """One name."""
        for ours, original in UNET_IN_ORIGINAL.items():
            if name.startswith(f"{ours}."):
                return original + _inner(name.removeprefix(ours))
        match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)(.*)", name)
        if match is None:
            return name
        side, level, kind, layer, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        if kind == "downsamplers":
            return f"input_blocks.{3 * (level + 1)}.0.op{rest.removeprefix('.conv')}"
        if kind == "upsamplers":
            return f"output_blocks.{3 * level + 2}.{2 if match[2] in attended else 1}{rest}"
        block = f"input_blocks.{3 * level + 1 + layer}" if side == "down" else f"output_blocks.{3 * level + layer}"
        return f"{block}.{0 if kind == 'resnets' else 1}{_inner(rest)}"

    return frozenset(map(spelt, names))


def vae_in_original(names: frozenset[str]) -> frozenset[str]:
    """These tensors of a VAE as the original layout names them, which counts the decoder's blocks from its end."""
    last = max(int(match[1]) for name in names if (match := re.match(r"decoder\.up_blocks\.(\d+)", name)))

    def spelt(name: str) -> str:
        """One name."""
        for ours, original in VAE_IN_ORIGINAL.items():
            name = re.sub(rf"(?<=\.){re.escape(ours)}(?=\.)", original, name)
        name = re.sub(r"(?<=encoder\.)down_blocks", "down", name).replace(".resnets.", ".block.")
        return re.sub(r"(?<=decoder\.)up_blocks\.(\d+)", lambda match: f"up.{last - int(match[1])}", name)

    return frozenset(map(spelt, names))


def _inner(rest: str) -> str:
    """What follows a block's name, as the original layout has it."""
    part = rest.split(".")[1]
    return rest.replace(part, RESIDUAL_IN_ORIGINAL[part], 1) if part in RESIDUAL_IN_ORIGINAL else rest


def _affine(modules: Iterable[str]) -> Names:
    for module in modules:
        yield f"{module}.weight"
        yield f"{module}.bias"


def _residual(block: str, shortcut: bool, timed: bool = True) -> Names:
    extra = [*(["time_emb_proj"] if timed else []), *(["conv_shortcut"] if shortcut else [])]
    yield from _affine(f"{block}.{part}" for part in (*RESIDUAL, *extra))


def _transformer(block: str, depth: int) -> Names:
    """An attention block of so many transformer blocks; none of depth 0."""
    if depth:
        yield from _affine(f"{block}.{part}" for part in ("norm", "proj_in", "proj_out"))
    for layer in (f"{block}.transformer_blocks.{number}" for number in range(depth)):
        yield from (f"{layer}.{name}" for name in QUERIES)
        yield from _affine(f"{layer}.{part}" for part in TRANSFORMER)


def _numbers(value: object, usual: tuple[int, ...]) -> list[int]:
    """A list of widths, the usual one where there is nothing sensible."""
    given: list[Any] = value if isinstance(value, list) else []
    return given if 0 < len(given) <= 16 and all(type(one) is int and one > 0 for one in given) else [*usual]


def _blocks(config: Config, side: str, usual: list[str]) -> list[str]:
    """The kinds of a side's blocks; one that no model has where the configuration lists no words."""
    given = config.get(f"{side}_block_types") or usual
    return given if isinstance(given, list) and all(isinstance(one, str) for one in given) else [""]


def _each(value: object, levels: int) -> list[int]:
    """A count for each level; empty where they are not counts."""
    counts: list[Any] = value if isinstance(value, list) else [value] * levels
    return counts if len(counts) == levels and all(type(one) is int and 0 < one <= MOST for one in counts) else []
