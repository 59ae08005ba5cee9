"""The location of a base model by its name or path."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock

from trainer.contract.errors import InvalidSettings
from trainer.contract.home import POCKET, user_path
from trainer.contract.pasted import pasted_model
from trainer.contract.settings.model import ModelSettings
from trainer.models.errors import BaseModelMissing, ModelError
from trainer.models.headers import readable
from trainer.models.hub import is_hub_name, local_folder
from trainer.models.identify import Family, identify
from trainer.models.installed import HUB, Found, find_models

FRESH_SECONDS = 60.0
ENDING = ".safetensors"
MOST_NAMED = 5
PUBLISHED: Mapping[Family, tuple[int, int]] = {"sd15": (4, 4), "sd2": (4, 4), "sdxl": (4, 3)}  # see `depths_of`
_looking = Lock()


def models_here() -> Sequence[Found]:
    """Returns the base models on this computer, searched once a minute at most: the page asks with every change."""
    with _looking:
        return _models_of(int(time.monotonic() / FRESH_SECONDS))


@lru_cache(maxsize=1)
def _models_of(_minute: int) -> Sequence[Found]:
    return tuple(find_models())


def name_of(found: Found) -> str:
    """Returns what chooses an installed model in the settings: its name on the hub, else its path."""
    return found.name if found.where == HUB else str(found.path)


def resolved(base_model: str) -> str:
    """Returns a model's name that is valid in every folder: "pocket", its name on the hub, or its full path.

    A bare name without a file here is searched among the models on this computer.

    Raises:
        BaseModelMissing: None of them has that name.
        NotABaseModel: The system refuses access.
        InvalidSettings: Several have that name.
    """
    base_model = pasted_model(base_model)
    if base_model == "pocket" or is_hub_name(base_model):
        return base_model
    path = user_path(base_model)
    with readable(path):
        bare = path.name == base_model and not path.exists()
        return _called(base_model) if bare else str(path.resolve())


def _called(name: str) -> str:
    wanted = _stem(name)
    hits = [one for one in models_here() if _stem(one.name.rpartition("/")[2]) == wanted]
    if not hits:
        raise BaseModelMissing(path=Path(name))
    if len(hits) > 1:
        more = f" and {len(hits) - MOST_NAMED} more" if len(hits) > MOST_NAMED else ""
        raise InvalidSettings(
            f"{len(hits)} models are called {name}: {', '.join(map(name_of, hits[:MOST_NAMED]))}{more}.",
            hint="Give the one you mean, as written here.",
            places={"model.base_model": f"{len(hits)} models of that name."},
        )
    return name_of(hits[0])


def _stem(name: str) -> str:
    return name.casefold().removesuffix(ENDING)


def located(base_model: str) -> Path | None:
    """Returns where a base model is on this computer; None for one of the hub that is not downloaded yet."""
    if base_model == "pocket":
        return POCKET
    return local_folder(base_model) if is_hub_name(base_model) else user_path(base_model)


def depths_of(settings: ModelSettings) -> tuple[int, int]:
    """Returns the levels of the chosen model's VAE and UNet; its family's published ones if the model has no config."""
    path = located(settings.base_model)
    if path is not None and path.is_dir():
        with suppress(OSError, ValueError, LookupError, TypeError):  # what is wrong with a model is reported elsewhere
            return _levels(path / "vae"), _levels(path / "unet")
    family: Family = "sd15" if settings.family == "auto" else settings.family
    if settings.family == "auto" and path is not None:
        with suppress(ModelError):
            family = identify(path).family
    return PUBLISHED[family]


def _levels(part: Path) -> int:
    return len(json.loads((part / "config.json").read_text(encoding="utf-8"))["block_out_channels"])
