"""The layers of a base model that a LoRA can change, known from its configurations or headers before it is loaded."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from trainer.models import lora_names
from trainer.models.blueprint import LAYERS_PER_BLOCK
from trainer.models.completeness import IN_A_FILE, UNET, unet_config
from trainer.models.headers import Header, read_header
from trainer.models.identify import BaseModel, Family
from trainer.models.lora_names import Component, Slot

ENCODERS: tuple[Component, ...] = ("text_encoder", "text_encoder_2")
ALL: tuple[Component, ...] = ("unet", *ENCODERS)
Config = Mapping[str, Any]


@dataclass(frozen=True)
class KeyTable:
    """A base model's part in the names of LoRA files: its family, and the configurations of UNet and text encoders."""

    family: Family
    configs: Mapping[Component, Config]

    @property
    def layers_per_block(self) -> int:
        """Of the UNet."""
        return int(self.configs["unet"]["layers_per_block"])

    def slots(self, targets: str, components: Sequence[Component]) -> dict[str, Slot]:
        """Returns every layer of these components and target set, by kohya's name."""
        made = lora_names.unet_slots(self.configs["unet"], targets, sgm=self.family == "sdxl")
        for part in ENCODERS:
            if part in components and part in self.configs:
                made |= lora_names.text_slots(self.configs[part], targets, part, self._prefixes[part])
        return made

    def kohya_name(self, component: Component, path: str) -> str:
        """The name of a layer in the files of this family, from its path as diffusers spells it."""
        if component == "unet" and self.family == "sdxl":
            path = lora_names.sgm_path(path, self.layers_per_block)
        return lora_names.kohya_name(component, path, self._prefixes)

    @property
    def _prefixes(self) -> Mapping[Component, str]:
        return lora_names.TWO_ENCODERS if "text_encoder_2" in self.configs else lora_names.ONE_ENCODER


def key_table(model: BaseModel) -> KeyTable | None:
    """Returns the key table of a base model; None where its configuration does not tell it, as a damaged one."""
    with suppress(OSError, ValueError, LookupError, TypeError, RecursionError):  # what is wrong is reported elsewhere
        configs = _of_folder(model) if model.layout == "folder" else _of_file(read_header(model.path), model.family)
        made = KeyTable(model.family, configs)
        made.slots("attention_mlp", ALL)  # fails here, if it does
        return made
    return None


def _of_folder(model: BaseModel) -> dict[Component, Config]:
    parts = ALL if model.family == "sdxl" else ALL[:2]
    return {part: json.loads((model.path / part / "config.json").read_text(encoding="utf-8")) for part in parts}


def _of_file(header: Header, family: Family) -> dict[Component, Config]:
    """The configurations of a one-file model, its widths read off its tensors."""
    middle, shapes = f"{UNET}middle_block.1.", header.tensors
    made: dict[Component, Config] = {
        "unet": {
            **unet_config(header, family),
            "layers_per_block": LAYERS_PER_BLOCK,
            "cross_attention_dim": shapes[f"{middle}transformer_blocks.0.attn2.to_k.weight"].shape[1],
            "use_linear_projection": len(shapes[f"{middle}proj_in.weight"].shape) == 2,
        }
    }
    for part, (prefix, layers) in zip(ENCODERS, IN_A_FILE[family], strict=False):
        inner, hidden = _mlp(header, (prefix, prefix.replace(".model.", ".transformer.")))
        made[part] = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers}
    return made


def _mlp(header: Header, prefixes: tuple[str, ...]) -> tuple[int, ...]:
    """The shape of the first layer of a text encoder's perceptron: how wide it is inside, and its states."""
    ends = (".0.mlp.fc1.weight", ".0.mlp.c_fc.weight")
    return next(
        entry.shape for name, entry in header.tensors.items() if name.startswith(prefixes) and name.endswith(ends)
    )
