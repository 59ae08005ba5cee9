"""Whether a base model has all that its parts need, to the last tensor: nothing is ever filled with random numbers."""

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from trainer.contract.errors import InvalidSettings
from trainer.models import blueprint
from trainer.models.errors import BaseModelMissing, NotABaseModel
from trainer.models.headers import AGAIN, Header, read_header
from trainer.models.lookalikes import OTHER_VAE, refuse_quantized

Config = Mapping[str, Any]
WORKING = ("unet", "vae", "text_encoder", "text_encoder_2")
# A component's weights, in the order in which they are looked for: plain or fp16, in one file or in several
VARIANTS = ("", ".fp16")
STEMS = ("diffusion_pytorch_model", "model")  # as diffusers and transformers call them
SHARD = re.compile(r"-0\d*-of-(\d+)(?=\.)")
UNET, VAE = "model.diffusion_model.", "first_stage_model."
# The text encoders of a file: where they lie, and the layers that are used
CLIP_LAYERS = 12
CLIP_WORDS = 49_408
IN_A_FILE: Mapping[str, tuple[tuple[str, int], ...]] = {
    "sd15": (("cond_stage_model.transformer.", CLIP_LAYERS),),
    "sd2": (("cond_stage_model.model.", 23),),  # the last of 24 is not used, and often left out
    "sdxl": (("conditioner.embedders.0.transformer.", CLIP_LAYERS), ("conditioner.embedders.1.model.", 32)),
}
PROJECTED = ("conditioner.embedders.1.model.",)  # of which the projection is used too
MOST_INDEX_BYTES = 1 << 24


def check_file(header: Header, family: str, own_vae: bool) -> None:
    """Refuse a one-file model that lacks tensors of its UNet, VAE or text encoders.

    Args:
        header: The file's.
        family: Which of `IN_A_FILE`.
        own_vae: Whether its own VAE is used; else nothing is asked of it.

    Raises:
        NotABaseModel: Some are missing; it names the part and the first of them.
    """
    names = header.tensors.keys()
    unet = blueprint.unet(unet_config(header, family)) or frozenset()
    _refuse_missing(header.path, "UNet", {UNET + name for name in blueprint.unet_in_original(unet)} - names)
    refuse_quantized(header, UNET, "UNet")
    if own_vae:
        widths = _widths(header, [VAE + f"encoder.down.{level}.block.0.conv1.weight" for level in range(4)])
        types: dict[str, object] = {
            "down_block_types": [blueprint.ENCODES] * 4,
            "up_block_types": [blueprint.DECODES] * 4,
        }
        types |= {"layers_per_block": blueprint.LAYERS_PER_BLOCK}
        vae = blueprint.vae({"block_out_channels": widths, **types}) or frozenset()
        wanted = {VAE + name for name in blueprint.vae_in_original(vae)}
        _refuse_missing(header.path, "VAE", wanted - names, OTHER_VAE)
        refuse_quantized(header, VAE, "VAE")
    for number, (prefix, layers) in enumerate(IN_A_FILE[family]):
        part = "text encoder" if number == 0 else "second text encoder"
        _refuse_missing(header.path, part, _missing_text(names, prefix, layers))
        refuse_quantized(header, prefix.removesuffix("transformer.").removesuffix("model."), part)


def _missing_text(names: Collection[str], prefix: str, layers: int) -> set[str]:
    """What a text encoder below this prefix lacks; a second one may have transformers' names."""
    spelt = prefix.replace(".model.", ".transformer.")
    if prefix.endswith(".transformer.") or any(name.startswith(spelt) for name in names):
        given = {name.removeprefix(spelt).removeprefix("text_model.") for name in names if name.startswith(spelt)}
        wanted = {name.removeprefix("text_model.") for name in blueprint.clip(layers)}
        wanted |= {"text_projection.weight"} if spelt != prefix else set()
        return {spelt + name for name in wanted - given}
    projection = {f"{prefix}text_projection"} if prefix in PROJECTED else set()
    return ({prefix + name for name in blueprint.open_clip(layers)} | projection) - set(names)


def check_part(model: Path, part: str, folder: Path, config: Config, projected: bool = False) -> list[Header]:
    """Refuse a part of a diffusers folder that lacks shards or tensors; returns the headers of its weight files.

    Args:
        model: The whole model, to be named.
        part: "unet", "vae", "text_encoder", "text_encoder_2", or "VAE" alone.
        folder: The part's.
        config: The part's own configuration.
        projected: Whether a text encoder needs its projection.

    Raises:
        NotABaseModel: It does; it names the part and the first of what is missing.
    """
    other = OTHER_VAE if part == "vae" else ""
    files = weight_files(folder)
    if not files:
        raise NotABaseModel(
            model, f"its {part} has no .safetensors file", f"Download the model's .safetensors files. {other}".strip()
        )
    headers = [_header_of(model, part, file, f"{AGAIN} {other}".strip()) for file in files]
    names: set[str] = set()
    for header in headers:  # which of two is meant, nobody can tell
        if twice := names & header.tensors.keys():
            raise NotABaseModel(model, f"its {part} holds {min(twice)} twice, in two of its files", AGAIN)
        names |= header.tensors.keys()
    absent = sorted(_indexed(model, part, files[0]) - {file.name for file in files})
    if absent:
        raise NotABaseModel(model, f"its {part} lacks {', '.join(absent)}", "Download the missing files too.")
    if part.startswith("text_encoder"):
        count = config.get("num_hidden_layers", CLIP_LAYERS)
        wanted = blueprint.clip(count if type(count) is int and 0 < count <= 256 else CLIP_LAYERS)
        bare = {name.removeprefix("text_model.") for name in names}
        missing = {name for name in wanted if name.removeprefix("text_model.") not in bare}
        missing |= {"text_projection.weight"} - names if projected else set()
    else:
        known = (blueprint.unet if part == "unet" else blueprint.vae)(config) or frozenset()
        missing = set(known - set(map(blueprint.later, names)))
    _refuse_missing(model, part, missing, other)
    for header in headers:
        refuse_quantized(header, "", part, model)
    return headers


def has_vocabulary(folder: Path, words: int) -> bool:
    """Whether a folder's tokenizer holds a vocabulary that fits its text encoder, which has so many words."""
    vocabulary, merges = _json(folder / "vocab.json"), folder / "merges.txt"
    if not vocabulary or not merges.is_file() or merges.stat().st_size < len(vocabulary):
        whole = _json(folder / "tokenizer.json")
        model = whole.get("model")
        known = model.get("vocab") if isinstance(model, dict) else None
        vocabulary = known if isinstance(known, dict) else {}
    numbers = vocabulary.values()
    return bool(vocabulary) and all(type(number) is int and 0 <= number < words for number in numbers)


def check_tokenizer(folder: Path, name: str, words: int) -> None:
    """Refuse a tokenizer without a vocabulary, unless its text encoder has CLIP's, which we have ourselves.

    Raises:
        NotABaseModel: Every caption would become the same numbers.
    """
    if words != CLIP_WORDS and not has_vocabulary(folder / name, words):
        seen = f"its {name} has no vocabulary (vocab.json and merges.txt, or tokenizer.json) for {words} words"
        raise NotABaseModel(folder, seen, "Download the missing files too.")


def _json(file: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is nothing of the kind."""
    try:
        if not file.is_file():  # opening a pipe could block forever
            return {}
        with file.open("rb") as opened:
            found = json.loads(opened.read(MOST_INDEX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def check_vae(path: Path) -> None:
    """Refuse what cannot stand in for a model's own VAE.

    Raises:
        InvalidSettings: It is something else, or tensors are missing.
    """
    hint = "Choose a VAE for this kind of model, a .safetensors file or a folder; leave it empty for the model's own."
    try:
        if not path.is_dir():
            _check_vae_file(read_header(path))
        else:
            check_part(path, "VAE", path, _config_of_vae(path))
    except NotABaseModel as error:
        seen = f"{error.seen}."
        raise InvalidSettings(f"model.vae = {path} cannot be used: {seen}", hint, {"model.vae": seen}) from None


def _config_of_vae(folder: Path) -> Config:
    config = _json(folder / "config.json")
    if not config and weight_files(folder):
        raise NotABaseModel(folder, "it has no config.json, or a damaged one")
    return config


def _check_vae_file(header: Header) -> None:
    names = header.tensors
    halves = [any(name.endswith(f"{half}.conv_in.weight") for name in names) for half in ("encoder", "decoder")]
    if not any(halves):
        raise NotABaseModel(header.path, "it holds no VAE")
    if not all(halves):
        missing = "encoder" if halves[1] else "decoder"
        raise NotABaseModel(header.path, f"its VAE has no {missing}")
    refuse_quantized(header, "", "VAE")


def weight_files(folder: Path) -> list[Path]:
    """A component's weight files, of the first variant that is there: one, or else several shards."""
    for name in (f"{stem}{variant}" for variant in VARIANTS for stem in STEMS):
        whole = folder / f"{name}.safetensors"
        if whole.exists() or whole.is_symlink():
            return [whole]
        shards = [(SHARD.search(file.name), file) for file in sorted(folder.glob(f"{name}-0*.safetensors"))]
        totals = [match[1] for match, _ in shards if match]
        if totals:
            return [file for match, file in shards if match and match[1] == totals[0]]
    return []


def _header_of(model: Path, part: str, file: Path, hint: str) -> Header:
    """A weight file's header; what is wrong with it is said of its part."""
    try:
        return read_header(file)
    except BaseModelMissing:  # a link that leads nowhere, as where the hub's cache was copied without its blobs
        raise NotABaseModel(model, f"its {part}'s {file.name} is a link to a file that is missing", hint) from None
    except NotABaseModel as error:
        raise NotABaseModel(model, f"its {part} is damaged ({file.name}: {error.seen})", hint) from None


def _indexed(model: Path, part: str, first: Path) -> set[str]:
    """The shards that an index lists, or their names count where there is none; of a whole file nothing is listed."""
    match = SHARD.search(first.name)
    if match is None:
        return set()
    index = first.with_name(f"{SHARD.sub('', first.name)}.index.json")
    if not index.exists():
        digits = len(match[1])
        numbers = range(1, min(int(match[1][-9:]), 1000) + 1)
        return {SHARD.sub(f"-{number:0{digits}}-of-{match[1]}", first.name) for number in numbers}
    listed = _json(index).get("weight_map")
    if not isinstance(listed, dict):
        raise NotABaseModel(model, f"its {part}'s {index.name} is damaged", AGAIN)
    return {str(name) for name in listed.values()}


def _refuse_missing(path: Path, part: str, missing: Collection[str], more: str = "") -> None:
    if missing:
        first = min(missing)
        count = f"{len(missing)} tensors are missing" if len(missing) > 1 else "a tensor is missing"
        seen = f"its {part} is incomplete: {count}, {'first ' if len(missing) > 1 else ''}{first}"
        raise NotABaseModel(path, seen, f"{AGAIN} {more}".strip())


def unet_config(header: Header, family: str) -> Config:
    """A one-file UNet's configuration, its widths read off its tensors."""
    sdxl = family == "sdxl"
    attended = [False, True, True] if sdxl else [True, True, True, False]
    places = [UNET + f"input_blocks.{1 + 3 * level}.0.out_layers.3.weight" for level in range(len(attended))]
    widths = _widths(header, places)
    down = [blueprint.DOWN[one] for one in attended]
    return {
        "block_out_channels": widths,
        "down_block_types": down,
        "up_block_types": [blueprint.UP[one] for one in reversed(attended)],
        "transformer_layers_per_block": [1, 2, 10] if sdxl else 1,
        "addition_embed_type": "text_time" if sdxl else None,
    }


def _widths(header: Header, places: list[str]) -> list[int]:
    """The channels of each level, off these tensors; 1 where one is missing, which is refused for that."""
    shapes = [header.tensors[place].shape if place in header.tensors else () for place in places]
    return [max(shape[0], 1) if shape else 1 for shape in shapes]
