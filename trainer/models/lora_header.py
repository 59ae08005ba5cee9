"""Whether a training can continue a LoRA file, checked by its header before anything is loaded."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from trainer.contract.errors import InvalidSettings
from trainer.contract.settings.learning import AdapterSettings
from trainer.contract.wording import setting
from trainer.models.errors import LoraRefused
from trainer.models.identify import NAMES, BaseModel
from trainer.models.lora_keys import Place
from trainer.models.lora_layers import PARTS, Layer, LoraFile, matrix, read_lora
from trainer.models.lora_names import Component, Slot, trained_components
from trainer.models.lora_slots import ALL, key_table

ROUNDING = 2**-8  # other programs write alpha in bf16 too
ITS_MODEL = "Choose a LoRA made for this base model, or the base model that it was made for."


@dataclass(frozen=True)
class Start:
    """A LoRA file that a run continues; `trained` of `fresh` layers are not in it (both None: known once loaded)."""

    file: LoraFile
    fresh: int | None = None
    trained: int | None = None


def check_start(settings: AdapterSettings, model: BaseModel | None = None) -> Start | None:
    """Refuse a `start_from` that a run of these settings cannot continue; returns None for an empty one.

    Args:
        settings: Of the run.
        model: Its base model; None if it is not known yet: then the file is judged without it.

    Raises:
        LoraRefused: The file is missing, damaged, of another kind, or does not fit the base model.
        InvalidSettings: It would fit with other settings; the hint says which.
    """
    if not settings.start_from:
        return None
    table = key_table(model) if model else None
    file = read_lora(Path(settings.start_from), *([table.layers_per_block] if table else []))
    if model and file.family not in (None, model.family):
        raise _made_for(file, NAMES[model.family])
    if table is None:
        _check_settings(file, settings)
        return Start(file)
    placed = placed_layers(file, table.slots("attention_mlp", ALL), table.kohya_name)
    _check_settings(file, settings)
    trained = table.slots(settings.targets, trained_components(settings))
    return Start(file, len(trained.keys() - placed.keys()), len(trained))


def placed_layers(
    file: LoraFile, slots: Mapping[str, Slot], kohya_name: Callable[[Component, str], str]
) -> dict[str, Layer]:
    """Returns a file's layers by kohya's names.

    Args:
        file: The LoRA.
        slots: All layers it may have, by kohya's names.
        kohya_name: How the base model's family calls a layer, from its component and path.

    Raises:
        LoraRefused: It has others, or weights of other shapes.
    """
    parts = {slot.component for slot in slots.values()}
    placed: dict[str, Layer] = {}
    for place, layer in file.layers.items():
        name = kohya_name(*place) if place.component in parts else ""
        if name not in slots:
            where = f"{place.path} of {PARTS[place.component]}"
            raise LoraRefused(file.path, f"changes a layer that this base model does not have: {where}", ITS_MODEL)
        if matrix(slots[name].shape) != layer.shape:
            seen = f"{name} has weights for {_sides(layer.shape)}, the base model's are {_sides(slots[name].shape)}"
            raise LoraRefused(file.path, f"was made for another model: {seen}", ITS_MODEL)
        placed[name] = layer
    return placed


def _check_settings(file: LoraFile, settings: AdapterSettings) -> None:
    """Refuse settings that leave out what the file holds, and say which would train it."""
    held = {"rank": file.rank, "alpha": file.alpha}
    try:
        AdapterSettings(rank=file.rank, alpha=file.alpha)
    except ValidationError:
        raise LoraRefused(file.path, f"has rank {file.rank} and alpha {file.alpha:g}, which no run can have") from None
    other = {name: value for name, value in held.items() if not _equal(value, getattr(settings, name))}
    trained = trained_components(settings)
    untrained: dict[str, tuple[str, str]] = {
        part: ("true", f"changes {PARTS[part]} too, which the run does not train")
        for part in file.counts
        if part not in trained
    }
    if settings.targets == "attention" and any(_beyond_attention(place) for place in file.layers):
        seen = "changes projections and feed-forward layers too; the run trains attention alone"
        untrained["targets"] = "attention_mlp", seen
    told = [seen for _, seen in untrained.values()]
    if other:
        told.insert(0, f"has {_and(other)}; the run has {_and({name: getattr(settings, name) for name in other})}")
    needed = {name: (f"{value:g}", f"has {value:g}") for name, value in other.items()} | untrained
    if needed:
        raise InvalidSettings(
            " ".join(f"{file.path.name} {what}." for what in told),
            hint=f"Set {' '.join(setting(f'adapter.{name}', value) for name, (value, _) in needed.items())}.",
            places={f"adapter.{name}": f"{file.path.name} {what}." for name, (_, what) in needed.items()},
        )


def _beyond_attention(place: Place) -> bool:
    return not any(f".{part}." in place.path for part in ("attn1", "attn2", "self_attn"))


def _made_for(file: LoraFile, base: str) -> LoraRefused:
    made = NAMES[file.family] if file.family else "another model"
    return LoraRefused(file.path, f"was made for {made}; the base model is {base}", ITS_MODEL)


def _and(values: Mapping[str, float]) -> str:
    return " and ".join(f"{name} {value:g}" for name, value in values.items())


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _equal(seen: float, wanted: float) -> bool:
    return math.isclose(seen, wanted, rel_tol=ROUNDING)
