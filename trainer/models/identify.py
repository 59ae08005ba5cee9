"""Which base model is at a path, by its structure: headers and configurations, without its weights."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from statistics import pstdev
from typing import Any, Literal

from trainer.contract import units
from trainer.models.completeness import CLIP_WORDS, UNET, check_file, check_part, check_tokenizer, weight_files
from trainer.models.errors import BaseModelMissing, NotABaseModel
from trainer.models.headers import Header, read_header, read_numbers, readable
from trainer.models.lookalikes import (
    FOLDER_ABOVE,
    OTHER_VAE,
    SUPPORTED,
    WHOLE_FILE,
    float_format,
    refuse_lookalikes,
)

Family = Literal["sd15", "sd2", "sdxl"]
Prediction = Literal["epsilon", "v_prediction"]

NAMES: Mapping[Family, str] = {"sd15": "SD 1.x", "sd2": "SD 2.x", "sdxl": "SDXL"}
SIZES_PX = {"512x512": 512, "768x768": 768, "1024x1024": 1024}
EDITING = {
    9: "it is an inpainting model: it also reads a mask",
    8: "it is an InstructPix2Pix model: it also reads the image to change",
    5: "it is a depth model: it also reads a depth map",
    7: "it is Stable Diffusion's upscaler: it also reads the small image",
}
PLAIN_BASE = "Choose the plain base model it was made from."
# Where no weight shows it, names do: of merges of the first anime models, and of SDXL's big retrainings
PENULTIMATE = re.compile(
    r"clip[-_ ]?skip[-_ ]?2|anything|orange|\baom|counterfeit|meina|animefull|\bnai\b|anylora", re.I
)
VARIANTS = {"Pony": "pony", "NoobAI": "noob", "Illustrious": "illustrious|ilxl"}
FLOW = re.compile(
    r"(?i:rect(?:ified)?[-_ .]?flow|flow[-_ .]?match|reflow|perflow|(?<![a-z])(?:rf|flow)(?![a-z]))"
    r"|(?<=[a-z])(?:RF|Flow)(?![A-Za-z])"
)
V_NAME = re.compile(r"v[-_ ]?pred", re.I)
# SD 2's two models have the same tensors. ComfyUI takes a standard deviation above 0.09 here for the velocity model;
# near it, or where the spread is that of no trained model (zeros, fresh random weights), we ask instead
SD2_MARKER = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
SD2_EPSILON, SD2_VELOCITY = (0.03, 0.085), (0.095, 0.3)
# What metadata says, the plainest first. ComfyUI's predict_key is believed for "v" only: it writes "epsilon" into
# whatever it did not recognize
DECLARED: tuple[tuple[str, str, Prediction], ...] = (
    ("modelspec.prediction_type", "v", "v_prediction"),
    ("modelspec.prediction_type", "v_prediction", "v_prediction"),
    ("modelspec.prediction_type", "epsilon", "epsilon"),
    ("modelspec.predict_key", "v", "v_prediction"),
    ("ss_v_parameterization", "True", "v_prediction"),
    ("ss_v_parameterization", "False", "epsilon"),
    ("modelspec.architecture", "stable-diffusion-v2-768-v", "v_prediction"),
    ("modelspec.architecture", "stable-diffusion-v2-512", "epsilon"),
    ("ss_base_model_version", "sd_v2_v", "v_prediction"),
    ("ss_base_model_version", "sd_v2", "epsilon"),
)

TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
SECOND_PARTS = ("text_encoder_2", "tokenizer_2")
CLIP = ("clip_text_model", "clip")
MOST_CONFIG_BYTES = 1 << 20
MOST_WORDS = 1 << 20
USUAL_NOISE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012}
MOST_TIMESTEPS = 10_000  # of a noise schedule: all models have 1000
Config = dict[str, Any]


@dataclass(frozen=True)
class BaseModel:
    """A base model that can be trained on, and its properties.

    Attributes:
        path: One file in the original layout, or a folder in the diffusers layout.
        layout: Which of the two.
        family: Its architecture.
        prediction: What its UNet predicts; None where nothing in the files decides.
        zero_terminal_snr: Whether its last timestep is pure noise.
        default_size: Native resolution: side of the square, in px.
        clip_skip: Text encoder layer to use, counting from the last one as 1; 0 for the family's own.
        variant: The SDXL finetune it is based on; empty if unknown.
        bytes: Of the file, or of the folder's weights.
        dtype: Number format of most weights: fp16, bf16, fp32 or fp64.
    """

    path: Path
    layout: Literal["file", "folder"]
    family: Family
    prediction: Prediction | None
    zero_terminal_snr: bool
    default_size: int
    clip_skip: int
    variant: str
    bytes: int
    dtype: str

    @property
    def kind(self) -> str:
        """Family and variant: "SDXL (Pony)"."""
        return NAMES[self.family] + (f" ({self.variant})" if self.variant else "")

    def sentence(self) -> str:
        """All of it on one line: "SDXL (Illustrious), predicts noise, 1024 px, fp16, 6.9 GB"."""
        predicts = {
            "epsilon": "predicts noise",
            "v_prediction": "predicts velocity",
            None: "not sure whether it predicts noise or velocity",
        }
        facts = [
            self.kind,
            predicts[self.prediction] + (" with zero terminal SNR" if self.zero_terminal_snr else ""),
            *([f"CLIP skip {self.clip_skip}"] if self.clip_skip else []),
            f"{self.default_size} px",
            self.dtype,
            units.size(self.bytes),
        ]
        return ", ".join(facts)


def identify(path: Path, own_vae: bool = True) -> BaseModel:
    """The base model at `path`, whole: all that its parts need is there.

    Args:
        path: A file or a folder.
        own_vae: Whether its VAE is used; with another in its place it may lack one.

    Raises:
        BaseModelMissing: Nothing there.
        NotABaseModel: Something else, or a model that cannot be trained; the hint says what to choose instead.
    """
    with readable(path):
        if not path.exists():
            raise BaseModelMissing(path=path)
        return _from_folder(path, own_vae) if path.is_dir() else _from_file(read_header(path), own_vae)


def unet_numbers(model: BaseModel) -> int:
    """Returns the parameter count of its UNet, which distinguishes a published architecture from a changed one.

    Raises:
        NotABaseModel: The files changed since they were identified.
    """
    files = [model.path] if model.layout == "file" else weight_files(model.path / "unet")
    prefix = "model.diffusion_model." if model.layout == "file" else ""
    entries = [item for file in files for item in read_header(file).tensors.items()]
    return sum(prod(entry.shape) for name, entry in entries if name.startswith(prefix))


def _from_file(header: Header, own_vae: bool) -> BaseModel:
    refuse_lookalikes(header, own_vae)
    family = _family_of_file(header)
    latents = _channels(header, "first_stage_model.decoder.conv_in.weight") if own_vae else None
    _refuse_editing(header.path, _channels(header, "model.diffusion_model.input_blocks.0.0.weight"), latents)
    prediction = _prediction_of_file(header, family)
    own_size = 1024 if family == "sdxl" else 768 if (family, prediction) == ("sd2", "v_prediction") else 512
    metadata = header.metadata
    called = _called(header.path, metadata.get("modelspec.title", ""))
    _refuse_flow(header.path, called, metadata.get("modelspec.prediction_type", ""))
    check_file(header, family, own_vae)
    return BaseModel(
        path=header.path,
        layout="file",
        family=family,
        prediction=prediction,
        zero_terminal_snr="ztsnr" in header.tensors or metadata.get("ss_zero_terminal_snr") == "True",
        default_size=SIZES_PX.get(metadata.get("modelspec.resolution", ""), own_size),
        clip_skip=_clip_skip(family, called, metadata.get("modelspec.encoder_layer") or metadata.get("ss_clip_skip")),
        variant=_variant(family, called),
        bytes=header.path.stat().st_size,
        dtype=float_format(header, UNET),
    )


def _refuse_flow(path: Path, called: str, declared: str) -> None:
    """Refuse a model retrained for flow matching: its tensors are those of any other, but mean something else.

    Raises:
        NotABaseModel: Its names or its metadata say so.
    """
    if "flow" in declared.lower():
        raise NotABaseModel(path, "it predicts flow (rectified flow or flow matching)", f"{SUPPORTED} {PLAIN_BASE}")
    if named := FLOW.search(called):
        seen = f'its name says that it predicts flow (rectified flow or flow matching): "{named[0]}"'
        raise NotABaseModel(path, seen, f"{PLAIN_BASE} If the name only happens to say so, rename it.")


def _family_of_file(header: Header) -> Family:
    """The family by the names of the text encoders' tensors, which differ whatever the widths are.

    Raises:
        NotABaseModel: A relative that is trained otherwise.
    """
    if header.has("^model.diffusion_model.label_emb."):
        return _sdxl_of_file(header)
    if header.has("^cond_stage_model.model."):
        return "sd2"
    if header.has("^cond_stage_model.transformer."):
        return "sd15"
    raise NotABaseModel(header.path, "its text encoder is of an unknown kind", SUPPORTED)


def _sdxl_of_file(header: Header) -> Family:
    if not header.has("^conditioner."):
        raise NotABaseModel(header.path, "it is an unCLIP model, which generates from images", SUPPORTED)
    if not header.has("^conditioner.embedders.1.model. ^conditioner.embedders.1.transformer."):
        raise NotABaseModel(header.path, "it is SDXL's refiner, which only finishes images", "Choose the SDXL base.")
    if not header.has("^conditioner.embedders.0.transformer."):
        raise NotABaseModel(header.path, "it has no first text encoder (CLIP-L)", WHOLE_FILE)
    if not header.has("^model.diffusion_model.input_blocks.8.1.transformer_blocks.9."):
        raise NotABaseModel(header.path, "it is a distilled SDXL like SSD-1B: layers are missing", SUPPORTED)
    return "sdxl"


def _prediction_of_file(header: Header, family: Family) -> Prediction | None:
    """What the UNet predicts: by a marking tensor, else the metadata, else what the family usually does."""
    if "v_pred" in header.tensors:
        return "v_prediction"
    metadata = header.metadata
    declared = next((prediction for key, value, prediction in DECLARED if metadata.get(key) == value), None)
    if family == "sd2":
        measured = _measured(header)
        agree = measured is None or declared is None or measured == declared
        return (declared or measured) if agree else None
    if declared:
        return declared
    # A name alone is too little to decide by, and too much to pass over; so is the mark of a schedule that only
    # velocity can be learned on
    doubtful = V_NAME.search(_called(header.path, metadata.get("modelspec.title", ""))) or "ztsnr" in header.tensors
    return None if doubtful else "epsilon"


def _measured(header: Header) -> Prediction | None:
    """What an SD 2 file's weights show, if they do so clearly."""
    values = read_numbers(header, SD2_MARKER)
    if not values or not all(isfinite(value) for value in values):
        return None
    spread = pstdev(values)
    if SD2_EPSILON[0] < spread < SD2_EPSILON[1]:
        return "epsilon"
    return "v_prediction" if SD2_VELOCITY[0] < spread < SD2_VELOCITY[1] else None


def _channels(header: Header, convolution: str) -> int:
    """The channels that a convolution reads; 4, the usual latents, where it is missing."""
    entry = header.tensors.get(convolution)
    return 4 if entry is None else entry.shape[1] if len(entry.shape) == 4 else 0


def _refuse_editing(path: Path, unet_channels: int, latents: int | None) -> None:
    """Let through only a UNet that reads the noisy latents and nothing else; another VAE's are compared when loaded."""
    if unet_channels != latents if latents else unet_channels in EDITING:
        other = f"its UNet reads {unet_channels} channels, its VAE makes {latents}"
        raise NotABaseModel(path, EDITING.get(unet_channels, other), PLAIN_BASE)


def _called(path: Path, title: str) -> str:
    """All names of a model: its file's or folder's, its title, and its repository's in the hub's cache."""
    repository = next((folder.parent.name for folder in path.parents if folder.name == "snapshots"), "")
    return f"{repository} {path.name} {title}"


def _clip_skip(family: Family, called: str, declared: str | None) -> int:
    """2 for an SD 1.x that was trained on the text encoder's last layer but one, else 0."""
    penultimate = declared == "2" if declared in ("1", "2") else PENULTIMATE.search(called)
    return 2 if family == "sd15" and penultimate else 0


def _variant(family: Family, called: str) -> str:
    """The first variant in the names; those of a NoobAI model may name Illustrious too."""
    named = (variant for variant, spelt in VARIANTS.items() if re.search(spelt, called, re.I))
    return next(named, "") if family == "sdxl" else ""


def _from_folder(folder: Path, own_vae: bool) -> BaseModel:
    if not (folder / "unet" / "config.json").is_file():
        raise _no_model_folder(folder)
    unet = _config(folder, "unet/config.json")
    family = _family_of_folder(folder, unet)
    missing = [part for part in _parts(family, own_vae) if not (folder / part).is_dir()]
    if missing:
        more = f" {OTHER_VAE}" if missing == ["vae"] else ""
        seen = f"it has no {', '.join(missing)}"
        raise NotABaseModel(folder, seen, f"Download the model's missing folders too.{more}")
    encoders = [part for part in _parts(family) if part in TEXT_ENCODERS]
    configs = {part: _config(folder, f"{part}/config.json") for part in encoders}
    if any(config.get("model_type", CLIP[0]) not in CLIP for config in configs.values()):
        raise NotABaseModel(folder, "its text encoder is of an unknown kind", SUPPORTED)
    for part, config in configs.items():
        words = _number(config, "vocab_size", CLIP_WORDS, MOST_WORDS)
        check_tokenizer(folder, part.replace("text_encoder", "tokenizer"), words)
    vae = _config(folder, "vae/config.json") if own_vae else {}
    scheduler = _config(folder, "scheduler/scheduler_config.json")
    _refuse_editing(folder, _number(unet, "in_channels", 4), _number(vae, "latent_channels", 4) if own_vae else None)
    prediction = _prediction_of_folder(folder, scheduler)
    configs = {"unet": unet, **({"vae": vae} if own_vae else {}), **configs}
    headers = {
        part: check_part(folder, part, folder / part, config, projected=part == "text_encoder_2")
        for part, config in configs.items()
    }
    levels = vae.get("block_out_channels")
    px_per_latent = 2 ** (len(levels) - 1) if isinstance(levels, list) and 1 <= len(levels) <= 8 else 8
    called = _called(folder, "")
    _refuse_flow(folder, called, "")
    return BaseModel(
        path=folder,
        layout="folder",
        family=family,
        prediction=prediction,
        zero_terminal_snr=scheduler.get("rescale_betas_zero_snr") is True,
        default_size=_number(unet, "sample_size", 128 if family == "sdxl" else 64) * px_per_latent,
        clip_skip=_clip_skip(family, called, None),
        variant=_variant(family, called),
        bytes=sum(header.path.stat().st_size for part in headers.values() for header in part),
        dtype=float_format(headers["unet"][0]),
    )


def _family_of_folder(folder: Path, unet: Config) -> Family:
    """Returns the family by the UNet's config: SD 2 has linear projections, SDXL is conditioned on image sizes.

    Raises:
        NotABaseModel: A relative that is trained otherwise.
    """
    kind = unet.get("_class_name", "UNet2DConditionModel")
    if kind != "UNet2DConditionModel":
        raise NotABaseModel(folder, f"its UNet is a {kind!s:.60}", SUPPORTED)
    if unet.get("addition_embed_type") == "text_time":
        if not (folder / "text_encoder").is_dir() and (folder / "text_encoder_2").is_dir():
            raise NotABaseModel(folder, "it is SDXL's refiner, which only finishes images", "Choose the SDXL base.")
        return "sdxl"
    return "sd2" if unet.get("use_linear_projection") is True else "sd15"


def _parts(family: Family, own_vae: bool = True) -> tuple[str, ...]:
    wanted = (*PARTS, *SECOND_PARTS) if family == "sdxl" else PARTS
    return wanted if own_vae else tuple(part for part in wanted if part != "vae")


def _prediction_of_folder(folder: Path, scheduler: Config) -> Prediction:
    """What the scheduler's configuration says; diffusers takes its silence for noise.

    Raises:
        NotABaseModel: Neither noise nor velocity.
    """
    kind, prediction = str(scheduler.get("_class_name", "")), scheduler.get("prediction_type", "epsilon")
    if kind.startswith(("EDM", "FlowMatch")) or prediction not in ("epsilon", "v_prediction"):
        raise NotABaseModel(folder, f"it uses another noise schedule ({kind:.60}, {prediction!s:.60})", SUPPORTED)
    other = [name for name in ("use_flow_sigmas", "trained_betas") if scheduler.get(name)]
    if other:
        raise NotABaseModel(folder, f"it uses another noise schedule (its scheduler has {other[0]})", SUPPORTED)
    # What is not there at all is missed when the model is loaded
    steps, *betas = (scheduler.get(name, usual) for name, usual in USUAL_NOISE.items())
    known = type(steps) is int and 1 < steps <= MOST_TIMESTEPS
    if not known or not all(isinstance(beta, int | float) and 0 < beta < 1 for beta in betas):
        seen = "its scheduler_config.json holds no noise schedule (num_train_timesteps, beta_start, beta_end)"
        raise NotABaseModel(folder, seen, "Download that file again.")
    return "v_prediction" if prediction == "v_prediction" else "epsilon"


def _config(folder: Path, name: str) -> Config:
    """One of the folder's JSON files.

    Raises:
        NotABaseModel: It is missing or cannot be understood.
    """
    path = folder / name
    if not path.is_file():
        raise NotABaseModel(folder, f"it has no {name}", "Download the model's missing files too.")
    try:
        with path.open("rb") as file:
            config = json.loads(file.read(MOST_CONFIG_BYTES))
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise NotABaseModel(folder, f"its {name} is damaged", "Download that file again.")
    return config


def _number(config: Config, name: str, usual: int, most: int = 4096) -> int:
    """A width or count from a configuration, the usual one where it says nothing sensible."""
    value = config.get(name)
    return value if type(value) is int and 0 < value <= most else usual


def _no_model_folder(folder: Path) -> NotABaseModel:
    """What a folder without a UNet seems to be, and what to choose instead."""
    if (folder / "model_index.json").is_file():
        kind = _config(folder, "model_index.json").get("_class_name")
        return NotABaseModel(folder, f"it has no unet folder, being a {kind!s:.60}", SUPPORTED)
    if (folder / "config.json").is_file():
        return NotABaseModel(folder, "it is one part of a model", FOLDER_ABOVE)
    files = sorted(file.name for file in folder.glob("*.safetensors"))
    if files:
        more = f" and {len(files) - 3} more" if len(files) > 3 else ""
        seen = f"it is a folder of single files ({', '.join(files[:3])}{more})"
        return NotABaseModel(folder, seen, "Choose one of the files in it.")
    return NotABaseModel(folder, "it holds no model", "Choose a .safetensors file or a model's folder.")
