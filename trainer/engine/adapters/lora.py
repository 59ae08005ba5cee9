"""LoRA layers on a family's modules, by peft: attach, group, save, restore."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from trainer.contract.errors import InvalidSettings
from trainer.contract.settings.learning import AdapterSettings
from trainer.contract.wording import setting
from trainer.engine.families.base import Family
from trainer.models.errors import UnsupportedModel
from trainer.models.lora_names import Component, Slot, trained_components

NAME = "default"  # peft's name of the one adapter


class PerSample:
    """A scaling of its own for each sample of a batch; CFG repeats the batch, and the scalings with it."""

    def __init__(self, scalings: Sequence[float]) -> None:
        self._scalings = scalings

    def __rmul__(self, added: Tensor) -> Tensor:
        """What a layer adds, (k·B, …) for B scalings, times them: peft multiplies by its scaling from the right."""
        scalings = torch.tensor(self._scalings, dtype=added.dtype, device=added.device)
        return added * scalings.repeat(len(added) // len(scalings)).view(-1, *[1] * (added.ndim - 1))


@dataclass(frozen=True)
class LiveLayer:
    """One attached LoRA layer; `down` (r, in, …) and `up` (out, r, …) are float32 and trained."""

    slot: Slot
    layer: LoraLayer

    @property
    def down(self) -> nn.Parameter:
        """peft's lora_A."""
        return cast("nn.Parameter", self.layer.lora_A[NAME].weight)

    @property
    def up(self) -> nn.Parameter:
        """peft's lora_B."""
        return cast("nn.Parameter", self.layer.lora_B[NAME].weight)

    @property
    def scaling(self) -> float:
        """What the product is multiplied by, as peft applies it."""
        return float(self.layer.scaling[NAME])

    def delta(self) -> Tensor:
        """The live weight update, float32, in the base weight's shape."""
        return cast("Tensor", self.layer.get_delta_weight(NAME)).detach().float()


@dataclass(frozen=True)
class Adapter:
    """All attached layers by their kohya name, in the key table's order."""

    layers: dict[str, LiveLayer]
    rank: int
    alpha: float

    def groups(self) -> dict[Component, list[nn.Parameter]]:
        """Trained parameters per component, in a fixed order."""
        made: dict[Component, list[nn.Parameter]] = {}
        for live in self.layers.values():
            made.setdefault(live.slot.component, []).extend((live.down, live.up))
        return made

    def parameters(self) -> list[nn.Parameter]:
        """All trained parameters, in a fixed order."""
        return [parameter for group in self.groups().values() for parameter in group]

    def use_dropout(self, wanted: bool) -> None:
        """Dropout belongs to training steps; previews show the whole adapter."""
        for live in self.layers.values():
            live.layer.lora_dropout.train(wanted)

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """The base model as it was, for as long as this lasts; for use without gradients."""
        for live in self.layers.values():
            live.layer.enable_adapters(enabled=False)
        try:
            yield
        finally:
            for live in self.layers.values():
                live.layer.enable_adapters(enabled=True)

    @contextmanager
    def scaled(self, *factors: float) -> Iterator[None]:
        """The adapter at `factor` times its strength, for as long as this lasts; for use without gradients.

        With several factors each sample of a batch has its own.
        """
        before = {name: live.scaling for name, live in self.layers.items()}
        try:
            for name, live in self.layers.items():
                made = [before[name] * factor for factor in factors]
                live.layer.scaling[NAME] = made[0] if len(made) == 1 else PerSample(made)
            yield
        finally:
            for name, live in self.layers.items():
                live.layer.scaling[NAME] = before[name]

    def state(self) -> dict[str, Tensor]:
        """The trained values under their file names, float32, on the CPU."""
        made: dict[str, Tensor] = {}
        for name, live in self.layers.items():
            made[f"{name}.lora_down.weight"] = live.down.detach().cpu().contiguous()
            made[f"{name}.lora_up.weight"] = live.up.detach().cpu().contiguous()
        return made

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` gave."""
        for name, live in self.layers.items():
            live.down.copy_(state[f"{name}.lora_down.weight"])
            live.up.copy_(state[f"{name}.lora_up.weight"])


def attach(family: Family, settings: AdapterSettings, seed: int) -> Adapter:
    """Attach fresh LoRA layers: the update starts at zero, weights are float32 whatever the base's dtype.

    Raises:
        InvalidSettings: The model has no second text encoder to train.
        UnsupportedModel: The loaded modules are not exactly those of the key table, so a part would silently stay
            untrained.
    """
    components = trained_components(settings)
    slots = family.lora_slots(settings.targets, components)
    torch.manual_seed(seed)
    found: dict[str, LiveLayer] = {}
    for component in components:
        wanted = {name for name, slot in slots.items() if slot.component == component}
        if not wanted:
            raise InvalidSettings(
                f"adapter.{component} = on, but the base model has no such text encoder.",
                hint=f"Set {setting(f'adapter.{component}', 'false')}; only SDXL has a second one.",
            )
        found |= _attach_to(family, component, wanted, slots, settings)
    missing = sorted(slots.keys() - found.keys())
    if missing:
        raise UnsupportedModel(
            f"{len(missing)} of {len(slots)} layers are not where they should be, first {missing[0]}.",
            hint="The installed diffusers or transformers is not a tested version; run the set-up again.",
        )
    return Adapter({name: found[name] for name in slots}, settings.rank, settings.alpha)


def _attach_to(
    family: Family, component: Component, wanted: set[str], slots: dict[str, Slot], settings: AdapterSettings
) -> dict[str, LiveLayer]:
    """Attach to one component; returns its layers by kohya name."""
    module = family.component(component)
    names = {path: family.kohya_name(component, path) for path, _ in module.named_modules()}
    paths = [path for path, name in names.items() if name in wanted]
    if not paths:
        return {}
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=paths,
    )
    inject_adapter_in_model(config, module, adapter_name=NAME)
    found: dict[str, LiveLayer] = {}
    for path in paths:
        layer = module.get_submodule(path)
        if not isinstance(layer, LoraLayer):
            continue
        layer.lora_A.float().requires_grad_(requires_grad=True).train()
        layer.lora_B.float().requires_grad_(requires_grad=True).train()
        layer.lora_dropout.train()
        slot = slots[names[path]]
        if tuple(cast("Tensor", layer.get_base_layer().weight).shape) == slot.shape:
            found[names[path]] = LiveLayer(slot, layer)
    return found
