"""Base models that are on this computer already: in the folders of WebUIs, and in the hub's cache."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from trainer.models.errors import ModelError
from trainer.models.hub import cached_models
from trainer.models.hub_files import INDEX_FILE
from trainer.models.identify import BaseModel, identify
from trainer.models.webuis import find_clients

# Where each program of `clients` keeps whole models, from its own folder
MODELS = {
    "AUTOMATIC1111": ("models/Stable-diffusion",),
    "ComfyUI": ("models/checkpoints",),
    "Fooocus": ("models/checkpoints",),
    "Forge": ("models/Stable-diffusion",),
    # Up to version 5 by kind; since then a folder for each model, of any kind
    "InvokeAI": ("models/sd-1/main", "models/sd-2/main", "models/sdxl/main", "models"),
    "SD.Next": ("models/Stable-diffusion",),
    "StabilityMatrix": ("Models/StableDiffusion",),
    "SwarmUI": ("Models/Stable-Diffusion",),
}
HUB = "Hugging Face cache"
MOST = 200  # candidates whose headers are read
MOST_ENTRIES = 5000  # of one folder
DEPTH = 4  # folders in folders, as people sort their models


@dataclass(frozen=True)
class Found:
    """A base model on this computer.

    Attributes:
        path: Its file or folder.
        where: The program whose it is.
        name: Its file's or folder's name; of a model of the hub owner/name, which serves as a base model too.
        model: What it is.
    """

    path: Path
    where: str
    name: str
    model: BaseModel


def find_models(home_dirs: Sequence[Path] | None = None) -> list[Found]:
    """Returns the base models that can be trained on, by family and name.

    Args:
        home_dirs: Home folders to search for WebUIs; None for the defaults of `find_clients`. The hub's cache is always
            searched.
    """
    found = []
    for where, name, path in islice(_candidates(home_dirs), MOST):
        with suppress(ModelError):
            found.append(Found(path, where, name, identify(path)))
    return sorted(found, key=lambda one: (one.model.family, one.name.casefold(), one.path))


def _candidates(home_dirs: Sequence[Path] | None) -> Iterator[tuple[str, str, Path]]:
    """Program, name and path of everything that looks like a model, each once: programs share folders by links."""
    seen = set()
    of_programs = ((where, _name(path), path) for where, place in _places(home_dirs) for path in _models_in(place))
    for where, name, path in chain(((HUB, name, path) for name, path in cached_models()), of_programs):
        if path.resolve() not in seen:
            seen.add(path.resolve())
            yield where, name, path


def _name(path: Path) -> str:
    return path.stem if path.suffix.lower() == ".safetensors" else path.name


def _places(home_dirs: Sequence[Path] | None) -> Iterator[tuple[str, Path]]:
    """The programs on this computer and the folders they keep models in."""
    for client in find_clients(home_dirs):
        program = client.lora_folder.parents[1]
        yield from ((client.name, program / place) for place in MODELS.get(client.name, ()))
    # Later versions of InvokeAI have no LoRA folder to be found by, but a place of their own
    own = [Path(os.environ["INVOKEAI_ROOT"])] if "INVOKEAI_ROOT" in os.environ else []
    for folder in [*own, *(home / "invokeai" for home in home_dirs or [Path.home()])]:
        yield from (("InvokeAI", folder / place) for place in MODELS["InvokeAI"])


def _models_in(folder: Path, depth: int = DEPTH, linked: bool = False) -> Iterator[Path]:
    """Model files, and folders in the diffusers layout, in a folder and those below it.

    Args:
        folder: Where to look; nothing is found where the system does not let us.
        depth: How many folders further down.
        linked: Whether a link led here: then further links are left alone, for they could lead anywhere.
    """
    try:
        with os.scandir(folder) as entries:
            inside = sorted(filter(_reachable, islice(entries, MOST_ENTRIES)), key=lambda entry: entry.name)
    except OSError:
        return
    if any(entry.name == INDEX_FILE for entry in inside):
        yield folder
        return
    for entry in inside:
        path, link = Path(entry.path), entry.is_symlink()
        if link and linked:
            continue
        if entry.is_file() and path.suffix.lower() == ".safetensors":
            yield path
        elif entry.is_dir() and depth:
            yield from _models_in(path, depth - 1, linked or link)


def _reachable(entry: os.DirEntry[str]) -> bool:
    """Whether it is worth a look: not hidden, and no link that leads nowhere."""
    try:
        entry.stat()
    except OSError:
        return False
    return not entry.name.startswith(".")
