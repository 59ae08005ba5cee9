"""Which layer a tensor of a LoRA file belongs to, by its name, in every form that programs write.

kohya, WebUIs and OneTrainer join a layer's path with underscores, diffusers and peft with dots; UNet blocks have
diffusers' or the original names; diffusers' first form put LoRA layers into attention processors.
"""

import re
from typing import Literal, NamedTuple

from trainer.contract.wording import setting
from trainer.models.errors import LoraRefused
from trainer.models.headers import Header
from trainer.models.lora_names import Component

Leaf = Literal["down", "up", "alpha"]
LONGEST = 300  # letters of a name; a damaged header may hold millions
LEAF = re.compile(
    r"(?:[._]lora(?:_linear_layer)?\.(?P<old>down|up)\.weight|\.lora_(?P<new>down|up|A|B)(?:\.\w+)?\.weight"
    r"|(?:[._]lora)?\.(?P<alpha>alpha))$"
)
HALVES: dict[str, Leaf] = {"down": "down", "A": "down", "up": "up", "B": "up", "alpha": "alpha"}
PREFIX = re.compile(
    r"(?:base_model\.model\.)?(?:(?P<unet>lora_unet|lycoris|unet|diffusion_model)"
    r"|(?P<text_encoder_2>lora_te2|text_encoder_2|clip_g)|(?P<text_encoder>lora_te1?|text_encoder|clip_l))[._]"
    r"(?:base_model\.model\.)?"
)
BARE = re.compile(r"(?:base_model\.model\.)?(?=(?:down_blocks|up_blocks|mid_block|(?P<text>text_model))[._])")
NUMBER = "([0-9]{1,3})"
BLOCK = re.compile(
    rf"(?:(?P<mid>mid_block_attentions_0|middle_block_1)"
    rf"|(?P<way>down|up)_blocks_(?P<block>{NUMBER})_attentions_(?P<layer>{NUMBER})"
    rf"|(?P<side>input|output)_blocks_(?P<place>{NUMBER})_1)_(?=proj_|transformer_blocks_)"
)
INNER = re.compile(
    rf"(?P<whole>proj_in|proj_out)|transformer_blocks_(?P<number>{NUMBER})_(?:"
    r"(?P<attention>attn[12])_(?:processor_)?to_(?P<which>[qkv]|out(?=$|_0$))(?:_0)?|ff_net_(?P<ff>0_proj|2))"
)
TEXT = re.compile(
    rf"(?:text_model_)?encoder_layers_{NUMBER}_(?:self_attn_(?P<attention>q|k|v|out)_proj|mlp_(?P<mlp>fc[12]))"
)
# Layers of these models that other programs train too, and a run does not
FURTHER = re.compile(
    r"resnets|samplers|conv_(in|out)|time_emb|label_emb|add_embedding|(input|output)_blocks_[0-9]+_[02]"
    r"|output_blocks_[0-9]+_1_conv|middle_block_[02]|unet_out_2|text_projection|embeddings"
)
# What it is where it is no LoRA of Stable Diffusion, and pieces of names (see `Header.has`) that show it; the model
# that it was made for is said first, for another kind of file would not help
MODELS = {
    "FLUX": "double_blocks single_blocks single_transformer_blocks",
    "Qwen-Image": "img_mlp img_mod",
    "Stable Diffusion 3": "joint_blocks",
    "FLUX or Stable Diffusion 3": "add_q_proj to_add_out ff_context",
    "another architecture (a diffusion transformer, like PixArt, Lumina, Wan or Anima)": (
        "^transformer. ^lora_transformer_ ^lora_unet_blocks_ ^lora_unet_layers_ ^diffusion_model.blocks. "
        "^diffusion_model.layers. ^base_model.model.blocks. ^blocks.0 lora_te3_ llm_adapter"
    ),
}
KINDS = {
    "a LoHa": "hada_w",
    "a LoKr": "lokr_w",
    "a DoRA": "dora_scale lora_magnitude_vector",
    "a LoCon in Tucker form": "lora_mid.",
    "a GLoRA": ".a1.weight .b1.weight",
    "an IA3": ".on_input",
    "an OFT": "oft_blocks oft_diag oft_R .boft",
    "a full difference (weights instead of a LoRA's two factors)": ".diff$ .diff_b$",
    "a LyCORIS file that trains norms": ".w_norm .b_norm",
    "a LoRA with biases": ".lora_up.bias$ .lora_B.bias$ lora.up.bias$",
    "a LoRA with a textual inversion in it": "^bundle_emb.",
}
PLAIN = (
    "Only a LoRA in the usual form, of attention and feed-forward layers, can be continued: choose another file for "
    f"{setting('adapter.start_from')}, or leave it empty to start fresh."
)


class Place(NamedTuple):
    """A layer: the model's part, and its path in it as diffusers spells it."""

    component: Component
    path: str


class Key(NamedTuple):
    """What a tensor is: whose, and which of a layer's three."""

    place: Place
    leaf: Leaf


def key_of(name: str, layers_per_block: int = 2) -> Key | None:
    """Returns what a tensor is by its name; None where it belongs to no layer that can be trained.

    Args:
        name: As the file spells it.
        layers_per_block: Of the UNet; the original block names are counted by it.
    """
    if len(name) > LONGEST or not (leaf := LEAF.search(name)):
        return None
    module = name[: leaf.start()]
    part, rest = _part(module)
    half = HALVES[leaf["old"] or leaf["new"] or leaf["alpha"]]
    path = _unet_path(rest, layers_per_block + 1) if part == "unet" else _text_path(rest)
    return Key(Place(part, path), half) if part and path else None


def refuse_other_kinds(header: Header) -> None:
    """Refuse what is an addition to a model, but no LoRA of Stable Diffusion in the usual form.

    Raises:
        LoraRefused: It names the model it was made for, or what it is.
    """
    for model, pieces in MODELS.items():
        if header.has(pieces):
            raise LoraRefused(header.path, f"was made for {model}, and this program trains SD 1.x, SD 2.x and SDXL")
    for kind, pieces in KINDS.items():
        if header.has(pieces):
            raise LoraRefused(header.path, f"is {kind}, which cannot be continued", PLAIN)


def _part(module: str) -> tuple[Component | None, str]:
    """The model's part that a layer's name begins with, and the rest of the name, joined by underscores."""
    found = PREFIX.match(module)
    if found:
        parts: tuple[Component, ...] = ("unet", "text_encoder", "text_encoder_2")
        return next(part for part in parts if found[part]), module[found.end() :].replace(".", "_")
    bare = BARE.match(module)
    if bare is None:
        return None, ""
    return "text_encoder" if bare["text"] else "unet", module[bare.end() :].replace(".", "_")


def _unet_path(name: str, each: int) -> str:
    """A UNet layer's path in diffusers' spelling; empty for a layer that no run trains.

    Args:
        name: Joined by underscores.
        each: How many blocks a level has in the original layout.
    """
    block = BLOCK.match(name)
    inner = INNER.fullmatch(name, block.end()) if block else None
    if block is None or inner is None:
        return ""
    if block["mid"]:
        where = "mid_block.attentions.0"
    elif block["way"]:
        where = f"{block['way']}_blocks.{int(block['block'])}.attentions.{int(block['layer'])}"
    else:
        level, layer = divmod(int(block["place"]) - (block["side"] == "input"), each)
        where = f"{'down' if block['side'] == 'input' else 'up'}_blocks.{level}.attentions.{layer}"
    if inner["whole"]:
        return f"{where}.{inner['whole']}"
    within = f"{where}.transformer_blocks.{int(inner['number'])}"
    if inner["ff"]:
        return f"{within}.ff.net.{inner['ff'].replace('_', '.')}"
    return f"{within}.{inner['attention']}.to_{inner['which']}{'.0' if inner['which'] == 'out' else ''}"


def _text_path(name: str) -> str:
    """A text encoder layer's path; empty for a layer that no run trains."""
    found = TEXT.fullmatch(name)
    if found is None:
        return ""
    inner = f"self_attn.{found['attention']}_proj" if found["attention"] else f"mlp.{found['mlp']}"
    return f"text_model.encoder.layers.{int(found[1])}.{inner}"
