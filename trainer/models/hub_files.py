"""Which files of a repository, or of its snapshot on this computer, training needs."""

import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path

INDEX_FILE = "model_index.json"
# The parts of a diffusers folder that training needs, each with what it must hold beside weights, one way or another
PARTS = {
    "scheduler": ({"scheduler_config.json"},),
    "tokenizer": ({"vocab.json", "merges.txt"}, {"tokenizer.json"}),
    "tokenizer_2": ({"vocab.json", "merges.txt"}, {"tokenizer.json"}),
    "text_encoder": ({"config.json"},),
    "text_encoder_2": ({"config.json"},),
    "vae": ({"config.json"},),
    "unet": ({"config.json"},),
}
NO_WEIGHTS = {"scheduler", "tokenizer", "tokenizer_2"}
ALWAYS = {"scheduler", "tokenizer", "text_encoder", "vae", "unet"}
WEIGHTS = re.compile(r"(?:diffusion_pytorch_)?model(\.fp16)?(?:-\d{5}-of-(\d{5}))?(\.fp16)?\.safetensors")
INDEX = re.compile(r"\.index(?:\.fp16)?\.json$")


def diffusers_files(paths: Sequence[str], parts: Collection[str]) -> tuple[str, ...]:
    """The files of a diffusers folder that training needs, small ones first; none where a part is not whole.

    Args:
        paths: All files, relative to the folder, with forward slashes.
        parts: Which parts it has or, by its index, should have; others than those training needs are passed over.
    """
    small = [INDEX_FILE]
    large: list[str] = []
    for part in (part for part in PARTS if part in parts or part in ALWAYS):
        inside = [path.removeprefix(f"{part}/") for path in paths if path.startswith(f"{part}/")]
        texts = [file for file in inside if file.endswith((".json", ".txt")) and "/" not in file]
        stored = weights(inside)
        if not any(way <= set(texts) for way in PARTS[part]) or not (stored or part in NO_WEIGHTS):
            return ()
        small += [f"{part}/{file}" for file in texts if not INDEX.search(file) or file in stored]
        large += [f"{part}/{file}" for file in stored if file not in texts]
    return (*small, *large)


def single_files(paths: Collection[str]) -> list[str]:
    """Models that are one file each, not a part of a folder."""
    return sorted(path for path in paths if path.endswith(".safetensors") and "/" not in path)


def whole(snapshot: Path) -> Path | None:
    """The folder, or the one model at its root, if nothing that training needs is missing.

    Raises:
        OSError: It cannot be read.
        ValueError: Its index is no JSON.
    """
    paths = [path.relative_to(snapshot).as_posix() for path in snapshot.glob("**/*") if path.is_file()]
    if INDEX_FILE in paths:
        index = json.loads((snapshot / INDEX_FILE).read_text(encoding="utf-8"))
        origins = index.items() if isinstance(index, dict) else ()
        parts = [part for part, origin in origins if isinstance(origin, list) and origin[:1] != [None]]
        return snapshot if diffusers_files(paths, parts) else None
    single = single_files(paths)
    return snapshot / single[0] if len(single) == 1 else None


def weights(files: Sequence[str]) -> list[str]:
    """One whole set of weights, half precision before full, one file before several with their index."""
    sets: dict[tuple[bool, int], list[str]] = {}
    for file in sorted(files):
        if match := WEIGHTS.fullmatch(file):
            half, pieces = bool(match[1] or match[3]), int(match[2] or 1)
            sets.setdefault((not half, pieces), []).append(file)
    for (full, pieces), found in sorted(sets.items()):
        if pieces == len(found) == 1:
            return found
        index = [file for file in files if ".safetensors.index" in file and ("fp16" not in file) == full]
        if pieces == len(found) and index:
            return [index[0], *found]
    return []
