"""What a model file is when it is no base model: additions, parts, other architectures, quantized weights."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from trainer.contract.wording import setting
from trainer.models.errors import NotABaseModel
from trainer.models.headers import FULL_PRECISION, Header

SUPPORTED = "Choose a Stable Diffusion 1.x, 2.x or SDXL model."
ITS_BASE = "Choose the base model that it was made for."
WHOLE_FILE = "Choose the whole model: one file with UNet, text encoder and VAE, or a folder in the diffusers layout."
OTHER_VAE = f"Or give another VAE: {setting('model.vae', 'FILE')}."
FOLDER_ABOVE = "Choose the folder above, the one that holds model_index.json."
FLOATS = {"F16": "fp16", "BF16": "bf16", "F32": "fp32", "F64": "fp64"}


class _Kind(NamedTuple):
    """A kind of file, and pieces of tensor names (see `Header.has`), any of which identifies it."""

    seen: str
    hint: str
    pieces: str


# The first that fits wins: a LoRA names the layers of the model it belongs to, old ControlNets hold a whole model
KINDS = (
    _Kind("it is a LoKr, an addition to a model", ITS_BASE, "lokr_w"),
    _Kind("it is a LoHa, an addition to a model", ITS_BASE, "hada_w"),
    _Kind(
        "it is a LoRA, an addition to a model",
        ITS_BASE,
        "lora_up lora_down lora_A lora_B lora.up lora.down lora_linear_layer .oft_ dora_scale",
    ),
    _Kind("it is a ControlNet", ITS_BASE, "^control_model. input_hint_block. ^controlnet_ lllite_"),
    _Kind("it is an IP-Adapter", ITS_BASE, "^image_proj. ^ip_adapter."),
    _Kind("it is a T2I-Adapter", ITS_BASE, "^body.0.block1. ^adapter.body."),
    _Kind("it is a motion module for video", ITS_BASE, "motion_modules."),
    _Kind(
        "it is a textual inversion, a new word for a model",
        ITS_BASE,
        "^emb_params$ ^string_to_param ^clip_l$ ^clip_g$ ^<",
    ),
    _Kind("it is a hypernetwork", ITS_BASE, "^320.0.linear. ^640.0.linear. ^768.0.linear. ^1024.0.linear."),
    _Kind("it is a model for video", SUPPORTED, ".time_stack. .temporal_transformer_blocks. .time_mixer."),
    _Kind("it is FLUX or a relative of it", SUPPORTED, "double_blocks. single_transformer_blocks."),
    _Kind("it is Stable Diffusion 3", SUPPORTED, "joint_blocks. .norm1_context."),
    _Kind("it is Stable Cascade", SUPPORTED, "clip_txt_mapper. effnet_mapper."),
    _Kind(
        "it uses another noise schedule (EDM, like Playground 2.5 and CosXL)",
        SUPPORTED,
        "^edm_mean$ ^edm_vpred.sigma_max$",
    ),
)
# Only for files without the original layout's UNet, which holds names like these further in
PARTS = (
    _Kind(
        "it is another architecture (a diffusion transformer, like PixArt, Lumina, Qwen-Image and Wan)",
        SUPPORTED,
        "^model.diffusion_model. adaln_single. cap_embedder. caption_projection. noise_refiner. .img_mod. "
        "double_layers. x_embedder. ^patch_embedding. ^blocks.0. ^layers.0.attention.",
    ),
    _Kind(
        "it is an upscaler",
        SUPPORTED,
        "RRDB_trunk. .rdb1. .RDB1. ^model.1.sub. residual_group. ^conv_first. ^upsampler.",
    ),
    _Kind("it is the UNet alone, one part of a model", FOLDER_ABOVE, "^down_blocks.0. ^mid_block."),
    _Kind(
        "it is a UNet alone, without text encoder and VAE",
        WHOLE_FILE,
        "^input_blocks.0.0. ^diffusion_model.input_blocks.",
    ),
    _Kind("it is an image encoder alone, one part of a model", WHOLE_FILE, "^vision_model. ^visual."),
    _Kind(
        "it is a text encoder alone, one part of a model",
        WHOLE_FILE,
        "^text_model. ^transformer.text_model. transformer.resblocks. ^encoder.layers.0.self_attn. ^encoder.block.0. "
        "^embeddings.token_embedding. ^model.layers.0. ^cond_stage_model. ^conditioner. ^clip_l. ^clip_g.",
    ),
    _Kind(
        "it is a VAE alone, one part of a model",
        WHOLE_FILE,
        "^first_stage_model. ^encoder. ^decoder. ^quant_conv. ^post_quant_conv.",
    ),
)
QUANTIZED = ".quant_state. .absmax$ .SCB$ .qweight$ .comfy_quant$ .scale_weight$ .weight_scale$"


def refuse_lookalikes(header: Header, own_vae: bool = True) -> None:
    """Let nothing through but a whole model in the original layout: UNet, text encoder and VAE.

    Args:
        header: The file's.
        own_vae: Whether its VAE is used; else it may lack one.

    Raises:
        NotABaseModel: It is something else.
    """
    if not header.tensors:
        raise NotABaseModel(header.path, "it holds no weights", SUPPORTED)
    parts = {
        "UNet": header.has("^model.diffusion_model.input_blocks.0.0.weight$"),
        "text encoder": header.has("^cond_stage_model. ^conditioner."),
        "VAE": header.has("^first_stage_model.encoder."),
    }
    single = not parts["UNet"] and sum(parts.values()) < 2
    for kind in (*KINDS, *PARTS) if single else KINDS:
        if header.has(kind.pieces):
            raise NotABaseModel(header.path, kind.seen, kind.hint)
    missing = [name for name, there in parts.items() if not there]
    if len(missing) == len(parts):
        raise NotABaseModel(header.path, "its tensors match no supported model", SUPPORTED)
    if missing == ["VAE"] and not own_vae:
        missing = []
    if missing:
        hint = f"{WHOLE_FILE} {OTHER_VAE}" if missing == ["VAE"] else WHOLE_FILE
        raise NotABaseModel(header.path, f"it is only part of a model: it has no {' and no '.join(missing)}", hint)
    refuse_quantized(header)


def refuse_quantized(header: Header, prefix: str = "", part: str = "", model: Path | None = None) -> None:
    """Let through only weights that are floats of 16 bits or more.

    Args:
        header: Of the file that holds them.
        prefix: What the names of the part's tensors begin with.
        part: It, where it is not the whole file.
        model: What is named, where it is not the file.

    Raises:
        NotABaseModel: They are rounded more coarsely.
    """
    kind = _coarse(header, prefix) if part else _most_bytes(header, prefix)
    whose = f"its {part}'s weights" if part.lower() not in ("", "unet") else "its weights"
    if kind.startswith("F8") or header.has("^scaled_fp8$"):
        raise NotABaseModel(model or header.path, f"{whose} are fp8, too coarse to train on", FULL_PRECISION)
    if kind not in FLOATS or header.has(QUANTIZED):
        raise NotABaseModel(model or header.path, f"{whose} are quantized, too coarse to train on", FULL_PRECISION)


def _coarse(header: Header, prefix: str) -> str:
    """The number format of the first matrix that is no float of 16 bits or more, else that of most bytes.

    A single one suffices: a part is as rounded as its most rounded layer. Positions are counted in whole numbers.
    """
    matrices = (
        entry.dtype
        for name, entry in header.tensors.items()
        if name.startswith(prefix) and len(entry.shape) > 1 and not name.endswith("position_ids")
    )
    return next((dtype for dtype in matrices if dtype not in FLOATS), _most_bytes(header, prefix))


def float_format(header: Header, prefix: str = "") -> str:
    """The number format of most weight bytes, of tensors whose names begin so: fp16, bf16, fp32 or fp64."""
    return FLOATS[_most_bytes(header, prefix)]


def _most_bytes(header: Header, prefix: str) -> str:
    """The number format that most bytes are in, as the header spells it; empty where there are none."""
    taken: Counter[str] = Counter()
    for name, entry in header.tensors.items():
        if name.startswith(prefix):
            taken[entry.dtype] += entry.end - entry.begin
    return max(taken, key=lambda kind: taken[kind], default="")
