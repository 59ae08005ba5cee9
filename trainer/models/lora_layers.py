"""The layers of a LoRA file, read from its header in every form that programs write; the weights are not looked at."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from math import isfinite, prod, sqrt
from pathlib import Path
from typing import Any

from trainer.models.errors import BaseModelMissing, LoraRefused, NotABaseModel
from trainer.models.headers import LARGEST_NUMBER, Header, read_header, read_numbers
from trainer.models.identify import NAMES, Family
from trainer.models.lookalikes import FLOATS, refuse_lookalikes
from trainer.models.lora_keys import FURTHER, LEAF, PLAIN, Leaf, Place, key_of, refuse_other_kinds
from trainer.models.lora_names import Component

WIDTHS: Mapping[int, Family] = {768: "sd15", 1024: "sd2", 2048: "sdxl"}  # of the text states that attn2 reads
PARTS: Mapping[Component, str] = {
    "unet": "the UNet",
    "text_encoder": "the text encoder",
    "text_encoder_2": "the second text encoder",
}
PEFT_CONFIG = "adapter_config.json"
MOST_CONFIG_BYTES = 1 << 20
LONGEST_SHOWN = 120  # letters of a name in a message


@dataclass(frozen=True)
class Layer:
    """One layer of a file.

    Attributes:
        down: The name of the tensor `down` (r, in, …) in the file.
        up: The name of the tensor `up` (out, r, …).
        rank: r.
        alpha: The update is alpha / r * up @ down.
        shape: Of the weight that it updates; 1x1 convolutions count as matrices, for programs write either.
    """

    down: str
    up: str
    rank: int
    alpha: float
    shape: tuple[int, ...]


@dataclass(frozen=True)
class LoraFile:
    """A LoRA that can be continued: at least one layer, all of one rank and alpha."""

    path: Path
    layers: dict[Place, Layer]

    @property
    def rank(self) -> int:
        """The rank of every layer."""
        return next(iter(self.layers.values())).rank

    @property
    def alpha(self) -> float:
        """The alpha of every layer."""
        return next(iter(self.layers.values())).alpha

    @cached_property
    def counts(self) -> dict[Component, int]:
        """How many layers of each of the model's parts it has."""
        found = [place.component for place in self.layers]
        return {part: found.count(part) for part in PARTS if part in found}

    @property
    def family(self) -> Family | None:
        """The family it was made for, by the width of the text states; None where no layer tells it."""
        for place, layer in self.layers.items():
            if place.path.endswith(("attn2.to_k", "attn2.to_v")) and layer.shape[1] in WIDTHS:
                return WIDTHS[layer.shape[1]]
        if "text_encoder_2" in self.counts:
            return "sdxl"
        text = [layer.shape[1] for place, layer in self.layers.items() if place.path.endswith("q_proj")]
        return "sd2" if 1024 in text else None  # CLIP-L's 768 are those of SD 1.x and SDXL

    def sentence(self) -> str:
        """All of it on one line: "SDXL LoRA, rank 16, alpha 8, 722 layers of the UNet and 72 of the text encoder"."""
        kind = f"{NAMES[self.family]} LoRA" if self.family else "LoRA"
        counts = [f"{count} layer{'s' if count > 1 else ''} of {PARTS[part]}" for part, count in self.counts.items()]
        return f"{kind}, rank {self.rank}, alpha {self.alpha:g}, {' and '.join(counts)}"


def matrix(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns a weight's shape, of 1x1 convolutions without the ones."""
    return shape[:2] if prod(shape[2:]) == 1 else shape


def read_lora(path: Path, layers_per_block: int = 2) -> LoraFile:
    """The LoRA at `path`, judged by its header and its alphas.

    Args:
        path: A .safetensors file.
        layers_per_block: Of the base model's UNet; the original block names are counted by it.

    Raises:
        LoraRefused: Something else or a damaged file; or one of several ranks or alphas.
    """
    try:
        header = read_header(path)
    except BaseModelMissing as error:
        raise LoraRefused(path, "does not exist") from error
    except NotABaseModel as error:
        raise LoraRefused(path, f"cannot be used: {error.seen}") from error
    refuse_other_kinds(header)
    found = _tensors_by_layer(header, layers_per_block)
    declared = _declared(header)
    layers = {place: _layer(header, place, tensors, declared) for place, tensors in found.items()}
    for what in ("rank", "alpha"):
        _refuse_mixed(path, what, {getattr(layer, what): layer for layer in layers.values()})
    return LoraFile(path, layers)


def _tensors_by_layer(header: Header, layers_per_block: int) -> dict[Place, dict[Leaf, str]]:
    """The names of each layer's tensors; a file with any other tensor is refused."""
    found: dict[Place, dict[Leaf, str]] = {}
    odd: list[str] = []
    for name in header.tensors:
        key = key_of(name, layers_per_block)
        if key is None:
            odd.append(name)
        elif (other := found.setdefault(key.place, {}).setdefault(key.leaf, name)) != name:
            raise LoraRefused(header.path, f"holds the same layer twice, as {_shown(other)} and {_shown(name)}")
    if not found and not any("lora" in name or name.endswith(".alpha") for name in odd):
        raise LoraRefused(header.path, f"is no LoRA: {_other_file(header)}")
    if odd:
        raise _refusal_of(header.path, odd)
    return found


def _refusal_of(path: Path, odd: list[str]) -> LoraRefused:
    """What is said of tensors that belong to no layer that is trained here."""
    further = [name for name in odd if LEAF.search(name) and FURTHER.search(name.replace(".", "_"))]
    if len(further) == len(odd):
        what = (
            f"{_module(min(odd))} and others like it" if len({_module(name) for name in odd}) > 1 else _module(odd[0])
        )
        return LoraRefused(path, f"is a LoCon: it changes convolutions or embeddings, {what}", PLAIN)
    first = min(set(odd) - set(further))
    more = f", and {len(odd) - 1} more" if len(odd) > 1 else ""
    return LoraRefused(path, f"holds a tensor of no layer that can be trained here: {_shown(first)}{more}", PLAIN)


def _other_file(header: Header) -> str:
    """What a file without any LoRA layer is."""
    try:
        refuse_lookalikes(header, own_vae=False)
    except NotABaseModel as error:
        return error.seen
    return "it is a whole base model"


def _layer(
    header: Header, place: Place, tensors: Mapping[Leaf, str], declared: Mapping[Component, Mapping[str, Any]]
) -> Layer:
    """One layer, its claims checked against one another."""
    module = _module(next(iter(tensors.values())))
    for leaf in ("down", "up"):
        if leaf not in tensors:
            raise LoraRefused(header.path, f"holds half a layer: {module} has no {leaf} weight")
    down, up = header.tensors[tensors["down"]], header.tensors[tensors["up"]]
    for entry in (down, up):
        if entry.dtype not in FLOATS:
            why = f"holds {module} in {entry.dtype}, too coarse to train on"
            raise LoraRefused(header.path, why, "Choose the same LoRA in fp16, bf16 or fp32.")
    rank = down.shape[0] if down.shape else 0
    if min(len(down.shape), len(up.shape)) < 2 or not all((*down.shape, *up.shape)) or matrix(up.shape)[1:] != (rank,):
        seen = f"{down.shape} and {up.shape}"
        raise LoraRefused(header.path, f"is damaged: the two weights of {module} do not fit together, {seen}")
    alpha = _alpha(header, tensors, rank, declared.get(place.component, {}))
    if not (isfinite(alpha) and alpha > 0):
        raise LoraRefused(header.path, f"is damaged: the alpha of {module} is {alpha:g}")
    return Layer(tensors["down"], tensors["up"], rank, alpha, matrix((up.shape[0], *down.shape[1:])))


def _alpha(header: Header, tensors: Mapping[Leaf, str], rank: int, declared: Mapping[str, Any]) -> float:
    """A layer's alpha: its own tensor's, else what peft wrote beside the weights, else its rank, as clients have it."""
    if "alpha" in tensors:
        values = read_numbers(header, tensors["alpha"])
        if len(values) != 1:
            raise LoraRefused(header.path, f"is damaged: {_shown(tensors['alpha'])} is not one number")
        return values[0]
    if declared.get("alpha_pattern"):
        raise LoraRefused(header.path, "has layers of different alpha (peft's alpha_pattern): it must be one")
    alpha = declared.get("lora_alpha")
    if not isinstance(alpha, int | float):
        return float(rank)
    factor = sqrt(rank) if declared.get("use_rslora") is True else 1.0
    return min(alpha, LARGEST_NUMBER) * factor  # a damaged one may be too large for a float


def _declared(header: Header) -> dict[Component, Mapping[str, Any]]:
    """peft's configuration of each part, where diffusers wrote it into the header, or peft into a file beside it."""
    whole = _json(header.metadata.get("lora_adapter_metadata", ""))
    made: dict[Component, Mapping[str, Any]] = {
        part: {name.removeprefix(f"{part}."): value for name, value in whole.items() if name.startswith(f"{part}.")}
        for part in PARTS
    }
    beside = header.path.with_name(PEFT_CONFIG)
    if header.has("^base_model.model.") and not whole and beside.is_file():
        with suppress(OSError), beside.open("rb") as file:
            made = dict.fromkeys(PARTS, _json(file.read(MOST_CONFIG_BYTES)))
    return made


def _json(text: str | bytes) -> dict[str, Any]:
    """A JSON object; an empty one where there is nothing of the kind."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _refuse_mixed(path: Path, what: str, found: Mapping[float, Layer]) -> None:
    if len(found) > 1:
        low, high = min(found), max(found)
        seen = f"{_module(found[low].down)} has {low:g}, {_module(found[high].down)} {high:g}"
        raise LoraRefused(path, f"has layers of different {what}, and only one {what} for all can be continued: {seen}")


def _module(name: str) -> str:
    """A layer's name, from that of one of its tensors."""
    return _shown(LEAF.sub("", name))


def _shown(name: str) -> str:
    """A name from the file, cut where a damaged header has a very long one."""
    return name if len(name) <= LONGEST_SHOWN else f"{name[:LONGEST_SHOWN]}…"
