"""LoRA module names and key tables, derived from model configurations and never from the installed libraries' modules.

Grammar: kohya's sd-scripts, the one form that every client reads. `tests/fixtures` holds independent tables.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trainer.contract.settings.learning import AdapterSettings

Component = Literal["unet", "text_encoder", "text_encoder_2"]
ATTENTION_LAYERS = ("to_q", "to_k", "to_v", "to_out_0")
ONE_ENCODER: Mapping[Component, str] = {"unet": "lora_unet", "text_encoder": "lora_te"}
TWO_ENCODERS: Mapping[Component, str] = {
    "unet": "lora_unet",
    "text_encoder": "lora_te1",
    "text_encoder_2": "lora_te2",
}
ATTENTION = re.compile(
    r"(?P<way>down|up)_blocks\.(?P<block>\d+)\.attentions\.(?P<layer>\d+)|(?P<mid>mid_block\.attentions\.0)"
)


@dataclass(frozen=True)
class Slot:
    """A place for a LoRA update: which component, and the shape of the weight it updates."""

    component: Component
    shape: tuple[int, ...]


def trained_components(settings: AdapterSettings) -> tuple[Component, ...]:
    """The model's parts that the settings train; the UNet always."""
    requested: dict[Component, bool] = {
        "unet": True,
        "text_encoder": settings.text_encoder,
        "text_encoder_2": settings.text_encoder_2,
    }
    return tuple(component for component, wanted in requested.items() if wanted)


def kohya_name(component: Component, path: str, prefixes: Mapping[Component, str] = ONE_ENCODER) -> str:
    """A module path as it stands in a LoRA file: one name without dots.

    transformers 5.6 dropped the `text_model.` level that every client expects; it is put back where missing.
    """
    if component != "unet" and not path.startswith("text_model."):
        path = f"text_model.{path}"
    return f"{prefixes[component]}_{path.replace('.', '_')}"


def sgm_path(path: str, layers_per_block: int) -> str:
    """A UNet attention's path as SDXL's own code spells it, by which its LoRA files go; other paths stay as they are.

    One input block per residual layer and one per downsampling, counted after the first convolution.
    """
    place = ATTENTION.match(path)
    if place is None:
        return path
    rest, each = path[place.end() :], layers_per_block + 1
    if place["mid"]:
        return f"middle_block.1{rest}"
    block, layer = int(place["block"]), int(place["layer"])
    if place["way"] == "down":
        return f"input_blocks.{1 + each * block + layer}.1{rest}"
    return f"output_blocks.{each * block + layer}.1{rest}"


def unet_slots(config: Mapping[str, Any], targets: str, sgm: bool = False) -> dict[str, Slot]:
    """All LoRA places of a diffusers `UNet2DConditionModel` configuration, in the network's order."""
    slots: dict[str, Slot] = {}
    for place, channels, depth in _transformers(config):
        spelled = sgm_path(place, config["layers_per_block"]) if sgm else place
        for name, shape in _transformer_layers(config, channels, depth, targets):
            slots[f"lora_unet_{spelled.replace('.', '_')}_{name}"] = Slot("unet", shape)
    return slots


def text_slots(
    config: Mapping[str, Any], targets: str, component: Component = "text_encoder", prefix: str = "lora_te"
) -> dict[str, Slot]:
    """All LoRA places of a CLIP text encoder configuration.

    Always all four attention projections of a layer: diffusers drops partial sets.
    """
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shapes = {f"self_attn_{name}_proj": (hidden, hidden) for name in ("q", "k", "v", "out")}
    if targets == "attention_mlp":
        shapes |= {"mlp_fc1": (inner, hidden), "mlp_fc2": (hidden, inner)}
    return {
        f"{prefix}_text_model_encoder_layers_{layer}_{name}": Slot(component, shape)
        for layer in range(config["num_hidden_layers"])
        for name, shape in shapes.items()
    }


def _transformers(config: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
    """(name, channels, number of transformer blocks) of every spatial transformer in a UNet."""
    channels = list(config["block_out_channels"])
    layers, depths = config["layers_per_block"], config.get("transformer_layers_per_block", 1)
    per_level = [layers] * len(channels) if isinstance(layers, int) else list(layers)
    depth = [depths] * len(channels) if isinstance(depths, int) else list(depths)
    for i, kind in enumerate(config["down_block_types"]):
        if kind.startswith("CrossAttn"):
            for j in range(per_level[i]):
                yield f"down_blocks.{i}.attentions.{j}", channels[i], depth[i]
    if config.get("mid_block_type", "UNetMidBlock2DCrossAttn") == "UNetMidBlock2DCrossAttn":
        yield "mid_block.attentions.0", channels[-1], depth[-1]
    for i, kind in enumerate(config["up_block_types"]):
        if kind.startswith("CrossAttn"):
            for j in range(per_level[-1 - i] + 1):
                yield f"up_blocks.{i}.attentions.{j}", channels[-1 - i], depth[-1 - i]


def _transformer_layers(
    config: Mapping[str, Any], channels: int, depth: int, targets: str
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, weight shape) of the layers in one spatial transformer; kohya's set is attention, projections, ff."""
    square = (channels, channels)
    whole_set = targets == "attention_mlp"
    projection = square if config.get("use_linear_projection") else (*square, 1, 1)
    if whole_set:
        yield "proj_in", projection
    for block in range(depth):
        prefix = f"transformer_blocks_{block}"
        for attention, width in (("attn1", channels), ("attn2", config["cross_attention_dim"])):
            for layer in ATTENTION_LAYERS:
                yield f"{prefix}_{attention}_{layer}", (channels, width) if layer in ("to_k", "to_v") else square
        if whole_set:
            yield f"{prefix}_ff_net_0_proj", (8 * channels, channels)
            yield f"{prefix}_ff_net_2", (channels, 4 * channels)
    if whole_set:
        yield "proj_out", projection
