"""The original single-file layout (CompVis, Stability AI): its tensors under the names that diffusers gives them.

diffusers' own converters rename; what differs between a published model and another of its build, the widths, is read
off the tensors, so that one template per family is enough.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from torch import Tensor

from trainer.models import blueprint

State = Mapping[str, Tensor]
HEAD = 64  # channels per attention head in every OpenCLIP and CLIP text encoder, and in the UNets of SD 2.x and SDXL
UNET, VAE = "model.diffusion_model.", "first_stage_model."


def unet(tensors: State, template: Mapping[str, Any]) -> State:
    """The UNet's tensors by diffusers' names."""
    own = {name: tensor for name, tensor in tensors.items() if name.startswith(UNET)}
    return _known(convert_ldm_unet_checkpoint(own, {"layers_per_block": 2, **template}))


def unet_widths(state: State, template: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration's numbers that the UNet's shapes decide."""
    channels = _levels(state, "down_blocks.{}.resnets.0.conv1.weight")
    attention = next(tensor for name, tensor in state.items() if name.endswith("attn2.to_k.weight"))
    widths: dict[str, Any] = {
        "block_out_channels": channels,
        "cross_attention_dim": attention.shape[1],
        "in_channels": state["conv_in.weight"].shape[1],
        "out_channels": state["conv_out.weight"].shape[0],
    }
    if isinstance(template["attention_head_dim"], list):
        widths["attention_head_dim"] = [max(1, width // HEAD) for width in channels]
    if "add_embedding.linear_1.weight" in state:
        widths["projection_class_embeddings_input_dim"] = state["add_embedding.linear_1.weight"].shape[1]
    return widths


def vae(tensors: State, template: Mapping[str, Any]) -> State:
    """The VAE's tensors by diffusers' names, from a whole model or a file of its own, in either layout."""
    own = _below(tensors, VAE) or dict(tensors)
    if any(name.startswith("encoder.down_blocks.") for name in own):
        return later(own)
    return _known(convert_ldm_vae_checkpoint(own, template))


def later(state: State) -> dict[str, Tensor]:
    """A VAE's tensors, those of its attention by today's names: diffusers called them otherwise up to version 0.17."""
    return {blueprint.later(name): tensor for name, tensor in state.items()}


def vae_widths(state: State) -> dict[str, Any]:
    """The configuration's numbers that the VAE's shapes decide."""
    return {
        "block_out_channels": _levels(state, "encoder.down_blocks.{}.resnets.0.conv1.weight"),
        "latent_channels": state["decoder.conv_in.weight"].shape[1],
    }


def text(tensors: State, prefix: str) -> State:
    """A text encoder's tensors by transformers' names."""
    if prefix.endswith("transformer."):
        state = _below(tensors, prefix)
        # Some merges are written without the level that all others have
        own = ("text_model.", "text_projection.")
        return {name if name.startswith(own) else f"text_model.{name}": tensor for name, tensor in state.items()}
    # Files that were converted from a folder lack the projection, off which the width is read otherwise
    width = SimpleNamespace(config=SimpleNamespace(hidden_size=tensors[f"{prefix}token_embedding.weight"].shape[1]))
    # Leaves the last layer of SD 2.x out, which that family does not use
    return _known(convert_open_clip_checkpoint(width, dict(tensors), prefix=prefix))


def text_widths(state: State) -> dict[str, int]:
    """The configuration's numbers that a text encoder's shapes decide."""
    words, hidden = state["text_model.embeddings.token_embedding.weight"].shape
    widths = {
        "vocab_size": words,
        "hidden_size": hidden,
        "intermediate_size": state["text_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": _count(state, "text_model.encoder.layers.{}.layer_norm1.weight"),
        "num_attention_heads": max(1, hidden // HEAD),
        "max_position_embeddings": state["text_model.embeddings.position_embedding.weight"].shape[0],
    }
    if "text_projection.weight" in state:
        widths["projection_dim"] = state["text_projection.weight"].shape[0]
    return widths


def _below(tensors: State, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _known(state: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """Without what a converter asked for and did not find."""
    return {name: tensor for name, tensor in state.items() if tensor is not None}


def _levels(state: State, pattern: str) -> list[int]:
    return [state[pattern.format(level)].shape[0] for level in range(_count(state, pattern))]


def _count(state: State, pattern: str) -> int:
    count = 0
    while pattern.format(count) in state:
        count += 1
    return count
