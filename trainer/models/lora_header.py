"""Whether a training can continue a LoRA file, checked by its header before anything is loaded."""

import math
from pathlib import Path

from trainer.contract.errors import InvalidSettings
from trainer.contract.settings.learning import AdapterSettings
from trainer.contract.wording import setting
from trainer.models.errors import NotABaseModel
from trainer.models.headers import read_header, read_numbers

ROUNDING = 2**-8  # other programs write alpha in bf16 too


def check_start(settings: AdapterSettings) -> None:
    """Refuse a `start_from` that a run of these settings cannot continue; an empty one is fine.

    Raises:
        InvalidSettings: The file is missing, is no LoRA, or has another rank or alpha.
    """
    if not settings.start_from:
        return
    path = Path(settings.start_from)
    ranks, alphas = _sizes(path)
    if len(ranks) > 1 or len(alphas) > 1:
        raise _unusable(path, "has layers of different rank or alpha, which no setting can match")
    found = {"rank": ranks[0], "alpha": alphas[0]}
    other = {name: value for name, value in found.items() if not _equal(value, getattr(settings, name))}
    if other:
        seen = " and ".join(f"{name} {value:g}" for name, value in other.items())
        wanted = " and ".join(f"{name} {getattr(settings, name):g}" for name in other)
        raise InvalidSettings(
            f"{path.name} has {seen}; the run has {wanted}.",
            hint=f"Set {' '.join(setting(f'adapter.{name}', f'{value:g}') for name, value in other.items())}.",
            places={f"adapter.{name}": f"{path.name} has {value:g}." for name, value in other.items()},
        )


def _sizes(path: Path) -> tuple[list[float], list[float]]:
    """The different ranks and alphas of a LoRA file's layers, at least one of each."""
    if not path.exists():
        raise _unusable(path, "does not exist")
    try:
        header = read_header(path)
    except NotABaseModel as error:
        raise _unusable(path, f"cannot be used: {error.seen}") from error
    downs = [entry for name, entry in header.tensors.items() if name.endswith(".lora_down.weight")]
    ranks = {float(rank) for entry in downs for rank in entry.shape[:1]}
    alphas = {alpha for name in header.tensors if name.endswith(".alpha") for alpha in read_numbers(header, name)}
    if not ranks or not alphas:
        raise _unusable(path, "is no LoRA file in kohya format")
    return sorted(ranks), sorted(alphas)


def _equal(seen: float, wanted: float) -> bool:
    return math.isclose(seen, wanted, rel_tol=ROUNDING)


def _unusable(path: Path, why: str) -> InvalidSettings:
    return InvalidSettings(
        f"The LoRA file {path} {why}.",
        hint=f"Choose another .safetensors file for {setting('adapter.start_from')}, or leave it empty to start fresh.",
        places={"adapter.start_from": f"{path.name} {why}."},
    )
