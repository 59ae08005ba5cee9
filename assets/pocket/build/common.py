"""What the pocket recipe's commands share: paths, data sets, seeds, and a checkpoint that survives a kill."""

from __future__ import annotations

import functools
import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

HERE = Path(__file__).parent
WORK = HERE / "work"  # git-ignored: downloads, rendered pictures, checkpoints
MODEL = HERE.parent  # assets/pocket, the diffusers folder that ships
PICTURE_PX = 64
SEED = 20261122

# Iconify icon sets, pinned; the prompt's style words are in every base caption.
ICON_SETS = {"noto": "noto@1.2.9", "fluent": "fluent-emoji-flat@1.2.6", "openmoji": "openmoji@1.2.29"}
BASE_STYLES = ("noto", "fluent")
PLAIN_STYLE = "noto"  # what a caption without a style's name means
# People write "a red apple", put a trigger word before it, and say "crying cat" where the icon is a crying face: words
# must mean the same in any place, beside any others
LEAD_INS = (
    "{article} {words}",
    "the {words}",
    "{article} {words} emoji",
    "a picture of {article} {words}",
    "one {words}",
)
LEAD_IN_SHARE, TRIGGER_SHARE, TURNED_SHARE, FACELESS_SHARE = 0.4, 0.4, 0.25, 0.4
SYLLABLES = ("ka", "lo", "mi", "nu", "re", "sa", "ti", "vo", "xe", "zu", "bra", "pol", "dan", "fir", "gex", "juk")


@functools.cache
def concepts() -> list[str]:
    """Icon names pocket learns, in the file's order."""
    lines = (HERE / "concepts.txt").read_text(encoding="utf-8").splitlines()
    return [name for line in lines if not line.startswith("#") for name in line.split()]


def phrase(icon: str) -> str:
    """An icon's name as words: "red-apple" -> "red apple"."""
    return icon.replace("-", " ")


def caption(icon: str, style: str | None) -> str:
    """The base caption of an image: "red apple, noto style"; without a style "red apple"."""
    return phrase(icon) if style is None else f"{phrase(icon)}, {style} style"


def other_captions(icon: str, style: str | None, count: int) -> list[str]:
    """A base caption as people write it, so often: "pol, a red apple, noto style"; the same for the same icon.

    With an article, a made-up trigger word before it, the words turned round ("face, crying"), or without "face".
    """
    chance = random.Random(f"{icon} {style}")
    return [_reworded(icon, chance) + ("" if style is None else f", {style} style") for _ in range(count)]


def _reworded(icon: str, chance: random.Random) -> str:
    words = phrase(icon)
    if words.endswith(" face") and icon.removesuffix("-face") not in concepts() and chance.random() < FACELESS_SHARE:
        words = words.removesuffix(" face")
    first, _, last = words.rpartition(" ")
    if first and chance.random() < TURNED_SHARE:
        words = f"{last}, {first}"
    elif chance.random() < LEAD_IN_SHARE:
        article = "an" if words.startswith(("a", "e", "i", "o", "um", "up")) else "a"
        words = chance.choice(LEAD_INS).format(article=article, words=words)
    if chance.random() < TRIGGER_SHARE:
        made_up = "".join(chance.choices(SYLLABLES, k=chance.choice((1, 2, 2, 3))))
        words = f"{made_up}{chance.choice((',', ''))} {words}"
    return words


@dataclass(frozen=True)
class Pictures:
    """Rendered icons: `pixels` (N, 64, 64, 3) uint8 RGB, memory-mapped, and (style, icon name) per row."""

    pixels: np.ndarray
    names: list[tuple[str, str]]

    def rows(self, keep: set[tuple[str, str]]) -> list[int]:
        """Row numbers of the images in `keep`, in stored order."""
        return [row for row, name in enumerate(self.names) if name in keep]

    def batch(self, rows: list[int]) -> Tensor:
        """Images as (B, 3, 64, 64) float32 in [-1, 1], channels last."""
        pixels = torch.from_numpy(self.pixels[rows]).permute(0, 3, 1, 2)
        return pixels.float().div(127.5).sub(1.0).contiguous(memory_format=torch.channels_last)


def load_pictures() -> Pictures:
    """Everything that `render.py` rendered."""
    names = json.loads((WORK / "pictures.json").read_text(encoding="utf-8"))
    return Pictures(np.load(WORK / "pictures.npy", mmap_mode="r"), [(style, icon) for style, icon in names])


def heldout_for_vae(pictures: Pictures, count: int = 200) -> list[int]:
    """Rows held out of VAE training: `count` images of base concepts, chosen by seed."""
    rows = pictures.rows({(style, icon) for style in BASE_STYLES for icon in concepts()})
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(SEED))
    return sorted(rows[i] for i in order[:count].tolist())


class Ema:
    """Moving average of a module's parameters; short memory early on, so the start is forgotten."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        self.decay = decay
        self.average = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Pull the average towards the module's current values."""
        decay = min(self.decay, (1 + step) / (10 + step))
        now = [value.detach() for value in module.state_dict().values()]
        torch._foreach_lerp_(list(self.average.values()), now, 1 - decay)


def save_checkpoint(
    folder: Path, module: nn.Module, ema: Ema, optimizers: Sequence[torch.optim.Optimizer], step: int
) -> None:
    """Write a resumable state beside the old one, then swap: after a kill one of the two is complete."""
    fresh = folder.with_name(folder.name + ".fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, fresh / "model.safetensors")
    save_file({name: value.contiguous() for name, value in ema.average.items()}, fresh / "ema.safetensors")
    moments = {
        f"{number}.{index}.{key}": value.contiguous()
        for number, optimizer in enumerate(optimizers)
        for index, slot in optimizer.state_dict()["state"].items()
        for key, value in slot.items()
    }
    save_file(moments, fresh / "optimizers.safetensors")
    (fresh / "state.json").write_text(json.dumps({"step": step}))
    if folder.exists():
        old = folder.with_name(folder.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        folder.replace(old)
    fresh.replace(folder)


def load_checkpoint(folder: Path, module: nn.Module, ema: Ema, optimizers: Sequence[torch.optim.Optimizer]) -> int:
    """Restore what `save_checkpoint` wrote, and return its step, 0 where there is none."""
    if not (folder / "state.json").exists():
        folder = folder.with_name(folder.name + ".old")  # killed between the two renames
    if not (folder / "state.json").exists():
        return 0
    module.load_state_dict(load_file(folder / "model.safetensors"))
    for name, value in load_file(folder / "ema.safetensors").items():
        ema.average[name].copy_(value)
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for key, value in load_file(folder / "optimizers.safetensors").items():
        number, index, slot = key.split(".", 2)
        states[int(number)].setdefault(int(index), {})[slot] = value
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(json.loads((folder / "state.json").read_text())["step"])


def sheet(pictures: Tensor, columns: int, path: Path) -> None:
    """Save images, (B, 3, H, W) in [-1, 1], as one PNG grid."""
    from PIL import Image

    pixels = pictures.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy()
    height, width = pixels.shape[1:3]
    grid = Image.new("RGB", (columns * width, -(-len(pixels) // columns) * height), "white")
    for i, picture in enumerate(pixels):
        grid.paste(Image.fromarray(picture), (i % columns * width, i // columns * height))
    path.parent.mkdir(parents=True, exist_ok=True)
    grid.save(path)
