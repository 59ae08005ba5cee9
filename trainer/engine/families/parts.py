"""A base model's parts, loaded: from a folder in the diffusers layout, or from one file in the original layout.

Weights go to their place once: files are memory-mapped, modules are built without weights of their own, and each
tensor is cast alone, and put into fewer bits at once, so that the peak is what is kept and one tensor more (ADR 8, 12).
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from trainer.contract.errors import InvalidSettings
from trainer.contract.settings.model import Quantize
from trainer.contract.wording import setting
from trainer.dataset.clip_tokens import BEGIN, END, vocabulary
from trainer.engine.device import out_of_memory
from trainer.engine.errors import NothingToSave
from trainer.engine.families import original
from trainer.engine.frozen.malloc import without_holes
from trainer.engine.frozen.quantized import QuantizedWeight, quantize_weight
from trainer.engine.frozen.streaming import blocks_of, stream
from trainer.models.completeness import CLIP_WORDS, has_vocabulary, weight_files
from trainer.models.errors import NotABaseModel, NotNumbers
from trainer.models.identify import BaseModel

CONFIGS = Path(__file__).parent / "configs"
QUANTIZED_BLOCKS = ("down_blocks.", "mid_block.", "up_blocks.")  # first and last convolution are small, and matter much
CPU = torch.device("cpu")
TILE_PX = 512  # side of what is decoded at once: small enough to matter, large enough for its norms to be the image's
LONGEST_CAPTION = 77  # tokens that CLIP has positions for
UNREADABLE = (OSError, ValueError, KeyError, AttributeError, RuntimeError, SafetensorError)  # what libraries raise
HOSTILE = (*UNREADABLE, TypeError, LookupError, ArithmeticError, StrictDataclassError)  # and of configurations


PART_NAMES: dict[type, str] = {UNet2DConditionModel: "UNet", AutoencoderKL: "VAE"}


class Unfit(ValueError):
    """Weights do not fit the module that they are for; its text is a part of a sentence."""


@dataclass(frozen=True)
class Storage:
    """How weights are kept: in a working dtype, or what is in the UNet's blocks in fewer bits on its device already.

    Or these blocks in system memory, to be streamed to the device.
    """

    dtype: torch.dtype
    quantize: Quantize = "none"
    device: torch.device = CPU
    stream: bool = False

    @property
    def vae_dtype(self) -> torch.dtype:
        """The VAE's dtype: float16 overflows in many of them, and images turn black."""
        return torch.float32 if self.dtype == torch.float16 else self.dtype

    def weight(self, name: str, tensor: Tensor) -> Tensor:
        """A weight of that name as it is kept."""
        if self.quantize == "none" or not name.startswith(QUANTIZED_BLOCKS):
            return tensor.to(self.dtype)
        made = quantize_weight(tensor.to(self.device, self.dtype), self.quantize)
        return made.cpu() if self.stream else made


@dataclass
class Parts:
    """Modules frozen on the CPU in their working dtype, tokenizers, and the scheduler's configuration.

    The UNet's weights are the most by far, and not needed while images and captions are encoded.
    """

    name: str
    unet: UNet2DConditionModel  # without weights until they are read
    read_unet: Callable[[], None]
    unet_files: list[Path]
    vae: AutoencoderKL
    text_encoders: list[nn.Module]
    tokenizers: list[CLIPTokenizer]
    scheduler: dict[str, Any]


@without_holes()
def load_parts(model: BaseModel, vae: Path | None, storage: Storage) -> Parts:
    """The parts of a recognized base model, with another VAE in place of its own if one is given.

    Raises:
        NotABaseModel: A part is missing or cannot be read.
        InvalidSettings: The other VAE is none, or not for this model.
    """
    template = json.loads((CONFIGS / f"{model.family}.json").read_text(encoding="utf-8"))
    load = _from_folder if model.layout == "folder" else _from_file
    other = load_vae(vae, template["vae"], storage.vae_dtype) if vae is not None else None
    with _reading(model.path):
        parts = load(model.path, template, storage, other)
        _check_fit(parts)
    if vae is not None:
        made, read = parts.vae.config.latent_channels, parts.unet.config.in_channels
        if made != read:
            raise _no_vae(vae, f"it makes latents of {made} channels, and {model.path.name} reads {read}")
    for module in (parts.unet, parts.vae, *parts.text_encoders):
        module.requires_grad_(requires_grad=False).eval()
    parts.read_unet = _reading(model.path)(parts.read_unet)
    return parts


def _check_fit(parts: Parts) -> None:
    """Refuse parts of different models: the UNet predicts what it reads, and reads what the text encoders make.

    Raises:
        Unfit: They do not fit together.
    """
    unet = parts.unet.config
    if unet.out_channels != unet.in_channels:
        raise Unfit(f"its UNet reads {unet.in_channels} channels and predicts {unet.out_channels}")
    encoders = [cast("Any", encoder).config for encoder in parts.text_encoders]
    width = sum(encoder.hidden_size for encoder in encoders)
    if unet.cross_attention_dim != width:
        raise Unfit(f"its UNet reads text of width {unet.cross_attention_dim}, its text encoder makes {width}")
    if unet.addition_embed_type == "text_time":
        pooled = unet.projection_class_embeddings_input_dim - 6 * unet.addition_time_embed_dim  # six numbers of a size
        if pooled != encoders[-1].projection_dim:
            made = encoders[-1].projection_dim
            raise Unfit(f"its UNet reads captions of width {pooled}, its second text encoder makes {made}")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Tell what libraries raise as a fault of the base model; that memory ran out is not one."""
    try:
        yield
    except UNREADABLE as error:
        if out_of_memory(error):
            raise
        raise NotABaseModel(path, _told(error)) from error


def _from_folder(folder: Path, template: dict[str, Any], storage: Storage, vae: AutoencoderKL | None) -> Parts:
    encoders: list[nn.Module] = []
    tokenizers: list[CLIPTokenizer] = []
    for number, kind in enumerate(template["text_encoders"]):
        suffix = "_2" if number else ""
        cls: Any = CLIPTextModelWithProjection if kind.get("projection") else CLIPTextModel
        encoders.append(_part(cls, folder / f"text_encoder{suffix}", storage.dtype))
        pad = template["tokenizers"][number]["pad_token"]
        tokenizers.append(_tokenizer(folder / f"tokenizer{suffix}", cast("Any", encoders[-1]).config, pad))
    unet = folder / "unet"
    bare, weights = _matched(partial(_configured, UNet2DConditionModel, unet), _tensors(unet))
    return Parts(
        name=folder.name,
        unet=bare,
        read_unet=partial(_fill_unet, bare, weights, storage),
        unet_files=weight_files(unet),
        vae=vae or _channels_last(_part(AutoencoderKL, folder / "vae", storage.vae_dtype)),
        text_encoders=encoders,
        tokenizers=tokenizers,
        scheduler=json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8")),
    )


def _part(cls: Any, folder: Path, dtype: torch.dtype) -> Any:  # noqa: ANN401 - diffusers' and transformers' models
    """A component from its folder: of the very files that were inspected, and of nothing else.

    Raises:
        Unfit: A weight is missing, or of another shape, or the configuration is none of such a component.
        NotNumbers: A weight is NaN or infinite.
    """
    weights = original.later(_tensors(folder)) if cls is AutoencoderKL else _tensors(folder)
    return _filled(partial(_configured, cls, folder), weights, Storage(dtype))


def _tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a component's weight files."""
    return {name: tensor for file in weight_files(folder) for name, tensor in load_file(file).items()}


def _configured(cls: Any, folder: Path) -> Any:  # noqa: ANN401
    """A component as its configuration describes it.

    Raises:
        Unfit: It describes none.
    """
    try:
        if cls.__module__.startswith("transformers"):
            return cls(CLIPTextConfig.from_pretrained(folder, local_files_only=True))
        return cls.from_config(cls.load_config(folder, local_files_only=True))
    except HOSTILE as error:
        if out_of_memory(error):
            raise
        raise Unfit(f"the config.json of its {folder.name} describes no such part") from error


def _tokenizer(folder: Path, encoder: CLIPTextConfig, pad_token: str) -> CLIPTokenizer:
    """The tokenizer of a text encoder: CLIP's own, which ships with us, unless the encoder has other words.

    Raises:
        Unfit: The folder's cannot be read, or has words that the encoder does not know.
    """
    if encoder.vocab_size == CLIP_WORDS or not has_vocabulary(folder, encoder.vocab_size):
        return clip_tokenizer(pad_token)
    try:
        made = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        made.model_max_length = min(made.model_max_length, encoder.max_position_embeddings)
        highest = max(made.get_vocab().values())
    except HOSTILE as error:
        raise Unfit(f"its {folder.name} cannot be read") from error
    if highest >= encoder.vocab_size:
        raise Unfit(f"its {folder.name} has more words than the {encoder.vocab_size} of its text encoder")
    return made


def all_weight_files(path: Path) -> list[Path]:
    """The files that a base model's or a VAE's weights are read from."""
    if not path.is_dir():
        return [path]
    parts = (path / "unet", path / "vae", path / "text_encoder", path / "text_encoder_2", path)
    return [file for part in parts for file in weight_files(part)]


def check_finite(weight: Tensor, part: str, name: str) -> None:
    """Refuse a tensor that holds NaN or infinity.

    Raises:
        NotNumbers: It does.
    """
    # The sum is many times faster, and shows both; only numbers that no model holds add up to more than float32 can
    if weight.is_floating_point() and not weight.sum(dtype=torch.float32).isfinite() and not weight.isfinite().all():
        raise NotNumbers(part, name)


def _from_file(path: Path, template: dict[str, Any], storage: Storage, vae: AutoencoderKL | None) -> Parts:
    tensors = load_file(path)
    unet = original.unet(tensors, template["unet"])
    unet_config = template["unet"] | original.unet_widths(unet, template["unet"])
    bare, weights = _matched(lambda: UNet2DConditionModel.from_config(unet_config), unet)
    encoders = [_text_encoder(tensors, kind, storage.dtype) for kind in template["text_encoders"]]
    return Parts(
        name=path.stem,
        unet=bare,
        read_unet=partial(_fill_unet, bare, weights, storage),
        unet_files=[path],
        vae=vae or _original_vae(tensors, template["vae"], storage.vae_dtype),
        text_encoders=encoders,
        tokenizers=[clip_tokenizer(kind["pad_token"]) for kind in template["tokenizers"]],
        scheduler=template["scheduler"],
    )


def load_vae(path: Path, template: dict[str, Any], dtype: torch.dtype) -> AutoencoderKL:
    """A VAE alone: a folder in the diffusers layout, or a file in either layout.

    Raises:
        InvalidSettings: It is something else.
    """
    try:
        if path.is_dir():
            return cast("AutoencoderKL", _channels_last(_part(AutoencoderKL, path, dtype)))
        tensors = load_file(path)
        if any("encoder.conv_in.weight" in name for name in tensors):
            return _original_vae(tensors, template, dtype)
    except UNREADABLE as error:
        raise _no_vae(path, _told(error)) from error
    raise _no_vae(path, "it holds no VAE")


@contextmanager
def in_tiles(vae: AutoencoderKL) -> Iterator[None]:
    """Let the VAE decode larger images in overlapping tiles, at a quarter of the memory at 1024 px.

    Not for longer than that, as it would encode in tiles, too.
    """
    vae.enable_tiling()
    vae.tile_sample_min_size = TILE_PX
    vae.tile_latent_min_size = TILE_PX // 2 ** (len(vae.config.block_out_channels) - 1)
    try:
        yield
    finally:
        vae.disable_tiling()


def _no_vae(path: Path, seen: str) -> InvalidSettings:
    """The refusal of a VAE of the user's choice."""
    hint = "Choose a VAE for this kind of model, a .safetensors file or a folder; leave it empty for the model's own."
    return InvalidSettings(f"model.vae = {path} cannot be used: {seen}.", hint=hint, places={"model.vae": f"{seen}."})


def _told(error: Exception) -> str:
    """What is wrong, in our words; what a library says of it is in the log."""
    return str(error) if isinstance(error, Unfit) else f"a part of it cannot be read ({type(error).__name__})"


def _original_vae(tensors: Mapping[str, Tensor], template: dict[str, Any], dtype: torch.dtype) -> AutoencoderKL:
    state = original.vae(tensors, template)
    config = template | original.vae_widths(state)
    return cast(
        "AutoencoderKL", _channels_last(_filled(lambda: AutoencoderKL.from_config(config), state, Storage(dtype)))
    )


def _text_encoder(tensors: Mapping[str, Tensor], kind: dict[str, Any], dtype: torch.dtype) -> nn.Module:
    cls: Any = CLIPTextModelWithProjection if kind.get("projection") else CLIPTextModel
    prefix = kind["original"]
    others = prefix.replace(".model.", ".transformer.")  # a second one by transformers' names
    state = original.text(tensors, others if any(name.startswith(others) for name in tensors) else prefix)
    widths = original.text_widths(state)
    words, _ = vocabulary()
    config = CLIPTextConfig(
        **{"projection_dim": kind["projection_dim"]} | widths,
        hidden_act=kind["hidden_act"],
        bos_token_id=words[BEGIN],
        eos_token_id=words[END],
        pad_token_id=words[END],
    )
    return cast("nn.Module", _filled(lambda: cls(config), state, Storage(dtype)))


def clip_tokenizer(pad_token: str) -> CLIPTokenizer:
    """CLIP's tokenizer from the vocabulary that ships with us."""
    words, merges = vocabulary()
    return CLIPTokenizer(vocab=dict(words), merges=list(merges), pad_token=pad_token, model_max_length=LONGEST_CAPTION)


def _filled(build: Callable[[], Any], state: Mapping[str, Tensor], storage: Storage) -> Any:  # noqa: ANN401
    """A module of exactly these weights.

    Raises:
        Unfit: Some are missing, or of another shape.
    """
    module, weights = _matched(build, state)
    _fill(module, weights, storage)
    return module


def _matched(build: Callable[[], Any], state: Mapping[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
    """A module without weights, and those it wants, by its names; names that only an older library wrote are left out.

    Raises:
        Unfit: Some are missing, or of another shape.
    """
    with init_empty_weights():
        module = build()
    wanted = module.state_dict().keys()
    nested = any(name.startswith("text_model.") for name in wanted)
    known = {name if nested else name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    part, missing = PART_NAMES.get(type(module), "text encoder"), sorted(wanted - known.keys())
    if missing:
        raise Unfit(f"its {part} lacks {len(missing)} tensors, first {missing[0]}")
    for name, tensor in module.state_dict().items():
        if tensor.shape != known[name].shape:
            given, fits = list(known[name].shape), list(tensor.shape)
            raise Unfit(f"{name} of its {part} has the shape {given}, and {fits} fits the rest of it")
    return module, {name: known[name] for name in wanted}


@without_holes()
def _fill(module: nn.Module, weights: dict[str, Tensor], storage: Storage) -> None:
    """Give the module these weights, which are given up."""
    for name, weight in weights.items():
        check_finite(weight, PART_NAMES.get(type(module), "text encoder"), name)
    module.load_state_dict({name: storage.weight(name, weights.pop(name)) for name in list(weights)}, assign=True)


def _fill_unet(unet: nn.Module, weights: dict[str, Tensor], storage: Storage) -> None:
    """Give the UNet its weights; its blocks may be quantized, and may stay in system RAM.

    Raises:
        NothingToSave: It is to be quantized or offloaded, and has no blocks for that.
    """
    _fill(unet, weights, storage)
    if storage.quantize != "none" and not any(isinstance(weight, QuantizedWeight) for weight in unet.parameters()):
        saving, dense = f"Quantization to {storage.quantize}", setting("model.quantize", "none")
        raise NothingToSave(saving=saving, parts="weights that it can quantize", instead=dense)
    if storage.stream:
        stream(blocks_of(unet), storage.device)


def _channels_last(module: Any) -> Any:  # noqa: ANN401
    return module.to(memory_format=torch.channels_last)
