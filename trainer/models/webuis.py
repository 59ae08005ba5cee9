"""WebUIs on this computer, and where their LoRA and checkpoint folders are."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import psutil

from trainer.contract.pasted import pasted

OWN = "My LoRA folder"
VARIABLE = "ATELIER_LORA_FOLDER"
SEARCH_SECONDS = 3.0  # a sleeping disk or a slow share must not delay the page
MOST_FOLDERS = 500  # of one folder; a Downloads folder may have many more
BELOW_HOME = (
    *("", "Documents", "Desktop", "Downloads", "pinokio/api"),
    *("AppData/Roaming/StabilityMatrix", ".config/StabilityMatrix"),
)
# Full of folders that are no WebUIs, or behind a permission prompt of the system
SKIPPED = {
    *("windows", "program files", "program files (x86)", "programdata", "library", "appdata", "node_modules"),
    *("pictures", "music", "movies", "videos", "site-packages"),
}


@dataclass(frozen=True)
class Client:
    """A program that generates images with LoRAs, and the folder it reads them from."""

    name: str
    lora_folder: Path


@dataclass(frozen=True)
class _Layout:
    """How a program is recognized: its LoRA folder, and what else lies in its folder."""

    name: str
    loras: str
    markers: tuple[str, ...]


# The first that fits wins: Forge and SD.Next have all that AUTOMATIC1111 has. InvokeAI 4 and later import LoRAs
# through their model manager only, so there is no folder to copy into
LAYOUTS = (
    _Layout("StabilityMatrix", "Models/Lora", ("Packages",)),
    _Layout("SwarmUI", "Models/Lora", ("launchtools", "src")),
    _Layout("SD.Next", "models/Lora", ("webui.py", "installer.py")),
    _Layout("Forge", "models/Lora", ("webui.py", "modules_forge")),
    _Layout("AUTOMATIC1111", "models/Lora", ("webui.py", "modules")),
    _Layout("Fooocus", "models/loras", ("launch.py", "fooocus_version.py")),
    _Layout("ComfyUI", "models/loras", ("main.py", "nodes.py")),
    _Layout("ComfyUI", "models/loras", ("custom_nodes", "user")),  # the desktop program keeps its code elsewhere
    _Layout("InvokeAI", "autoimport/lora", ("invokeai.yaml",)),
)


def find_clients(home_dirs: Sequence[Path] | None = None) -> list[Client]:
    """WebUIs on this computer that have a LoRA folder; those named in ATELIER_LORA_FOLDER come first.

    Args:
        home_dirs: Home folders to look in and below; None for the user's, this computer's drives and /opt.
    """
    named = filter(None, os.environ.get(VARIABLE, "").split(os.pathsep))
    clients = [Client(OWN, Path(pasted(folder)).expanduser()) for folder in named]
    homes = [Path.home()] if home_dirs is None else home_dirs
    places = [home / below for home in homes for below in BELOW_HOME]
    found = _search([*places, *_drives()] if home_dirs is None else places)
    seen = {client.lora_folder.resolve() for client in clients}
    for client in found:
        folder = client.lora_folder.resolve()  # packages of StabilityMatrix link to its one folder
        if folder not in seen:
            seen.add(folder)
            clients.append(client)
    return clients


def _drives() -> list[Path]:
    """Where WebUIs lie beyond the home folder: the roots of built-in drives on Windows, else /opt."""
    if os.name != "nt":
        return [Path("/opt")]
    return [Path(part.mountpoint) for part in psutil.disk_partitions() if "fixed" in part.opts]


def _search(places: Sequence[Path]) -> list[Client]:
    """WebUIs in these places and up to two folders below, as far as the time allows."""
    found: list[Client] = []
    until = time.monotonic() + SEARCH_SECONDS
    waiting = [(place, 2) for place in places]
    looked: set[Path] = set()
    for folder, depth in waiting:  # grows as it goes: near folders first
        if time.monotonic() >= until:
            break
        if folder in looked:
            continue
        looked.add(folder)
        client = _recognized(folder)
        if client:
            found.append(client)
        if client and client.name == "StabilityMatrix":
            waiting.append((folder / "Packages", 1))
        elif not client and depth:
            waiting += [(inner, depth - 1) for inner in _folders(folder)]
    return found


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder that may hold a WebUI; none where the system does not let us look."""
    try:
        with os.scandir(folder) as entries:
            wanted = (e for e in entries if not e.name.startswith((".", "$")) and e.name.lower() not in SKIPPED)
            return sorted(Path(entry.path) for entry in islice((e for e in wanted if e.is_dir()), MOST_FOLDERS))
    except OSError:
        return []


def _recognized(folder: Path) -> Client | None:
    """The WebUI whose folder this is."""
    try:
        for layout in LAYOUTS:
            loras = folder / layout.loras
            if loras.is_dir() and all((folder / marker).exists() for marker in layout.markers):
                return Client(layout.name, loras)
    except OSError:  # no permission
        return None
    return None
